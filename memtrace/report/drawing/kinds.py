"""What the bytes of a row are, in words: a row of one kind by its name, a mixed one with the bytes of each.

A mixed row is never called by its largest kind alone: its bytes would be more than all that there is of it.
"""

from __future__ import annotations

from collections.abc import Mapping

from memtrace.schema.names import category_words
from memtrace.units import format_bytes

_MOST = 2


def kinds(by_category: Mapping[str, int]) -> str:
    """Return the categories of a row, the largest first; of several, bytes of the first two and of the others together.

    >>> kinds({"activation": 1024})
    'activations'
    >>> kinds({"parameter": 1024, "gradient": 2048, "buffer": 1, "input": 2, "workspace": 0})
    'gradients 2.00 KiB, parameters 1.00 KiB, 2 others 3 B'
    """
    found = sorted(((name, one) for name, one in by_category.items() if one), key=lambda pair: (-pair[1], pair[0]))
    if len(found) == 1:
        return category_words(found[0][0])
    # A rest of one kind is told as shortly by its name.
    shown = found if len(found) == _MOST + 1 else found[:_MOST]
    parts = [f"{category_words(name)} {format_bytes(num_bytes)}" for name, num_bytes in shown]
    rest = found[len(shown) :]
    if rest:
        parts.append(f"{len(rest)} others {format_bytes(sum(one for _, one in rest))}")
    return ", ".join(parts)
