"""The bar of a card: what the device holds at the peak, stretch after stretch, up to its capacity.

In: `Card`. Out: stretches of bytes, in order. Terminal, SVG and page draw the same ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from memtrace.analysis.results.card import Card
from memtrace.report.drawing.palette import category_ink

MAX_CATEGORIES = 4
"""Categories with a stretch of their own; the rest are one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stretch:
    """One stretch of the bar."""

    kind: str
    """category, others, rounding, idle (reserved, in no block at the peak), outside (of torch) or free."""
    category: str | None
    """Name of the category, of that kind."""
    label: str
    """What it is called."""
    num_bytes: int
    """How long it is."""


def stretches(card: Card) -> list[Stretch]:
    """Return the stretches of a bar, those of no bytes left out."""
    parts = card.parts if len(card.parts) <= MAX_CATEGORIES + 1 else card.parts[:MAX_CATEGORIES]
    found = [
        Stretch(kind="category", category=one.category, label=category_ink(one.category).label, num_bytes=one.num_bytes)
        for one in parts
    ]
    requested, peak = card.requested_bytes or 0, card.peak_bytes or 0
    found.append(_other("others", "others", sum(one.num_bytes for one in card.parts[len(parts) :])))
    found.append(_other("rounding", "rounding to blocks", peak - requested))
    found.append(_other("idle", "reserved, idle", (card.reserved_bytes or 0) - peak))
    found.append(_other("outside", "outside torch", card.outside_bytes or 0))
    used = sum(max(0, one.num_bytes) for one in found)
    found.append(_other("free", "free", (card.capacity_bytes or 0) - used))
    return [one for one in found if one.num_bytes > 0]


def _other(kind: str, label: str, num_bytes: int) -> Stretch:
    return Stretch(kind=kind, category=None, label=label, num_bytes=num_bytes)


def cells(found: Sequence[Stretch], width: int) -> list[int]:
    """Return how many cells of a width each stretch gets; they add up to it, and none of a thousandth gets none.

    >>> of = lambda size: Stretch(kind="category", category="parameter", label="", num_bytes=size)
    >>> cells([of(600), of(399), of(1)], 10)
    [6, 3, 1]
    """
    total = sum(one.num_bytes for one in found)
    if not total:
        return []
    exact = [one.num_bytes * width / total for one in found]
    whole = [max(int(one), 1 if found[at].num_bytes * 1000 >= total else 0) for at, one in enumerate(exact)]
    # The largest makes up for what rounding left or took.
    by_rest = sorted(range(len(whole)), key=lambda at: whole[at] - exact[at])
    for at in by_rest[: max(0, width - sum(whole))]:
        whole[at] += 1
    largest = max(range(len(whole)), key=lambda at: whole[at])
    whole[largest] += width - sum(whole)
    return whole


def capacity_cell(card: Card, found: Sequence[Stretch], width: int) -> int | None:
    """Return the cell of a bar at which the device ends; `None` where it ends with the bar, or is not known."""
    total = sum(one.num_bytes for one in found)
    if card.capacity_bytes is None or total <= card.capacity_bytes:
        return None
    return min(width - 1, card.capacity_bytes * width // total)
