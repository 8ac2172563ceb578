"""When blocks were freed whose free was not seen: told by the allocator's own running total.

Torch's profiler sees one thread. A collective of gloo may drop the last reference to a buffer on a thread of its own:
the free makes no event, but the next event's total is smaller by the size of the block.

    alloc 100 (total 100) · alloc 8 (total 8)    →    100 bytes were freed between the two
"""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from collections.abc import Mapping

import numpy as np

from memtrace.store.columns import NULL, BoolArray, IntArray

_MAX_SHARE = 0.25
"""Where more than this part of all events does not add up, the total counts something else than sizes: whole blocks."""

_NUM_COMING = 8
"""Events within which the total is back if events of two threads merely changed places."""


def unseen_frees(columns: Mapping[str, IntArray], sign: IntArray, begun: IntArray, until: IntArray) -> IntArray:
    """Return, for each of these blocks, the row before which it was freed; null where nothing tells.

    `sign` is 1 for an alloc, -1 for a free, 0 for the other rows of `columns`; `begun` are the rows of the allocs whose
    free was not seen, ascending; `until` is, for each, the row by which its address is in use again, or the number of
    rows. Of several blocks of the same size, the one that was allocated first is freed first.
    """
    freed_before = np.full(len(begun), NULL, np.int64)
    if not len(begun):
        return freed_before
    rows, jumps, lasts = _jumps(columns, sign)
    if not np.any(jumps < 0) or len(jumps) > np.count_nonzero(sign) * _MAX_SHARE:
        return freed_before
    waiting: dict[int, deque[int]] = defaultdict(deque)
    not_seen: Counter[int] = Counter()
    sizes, starts, limits = columns["size_bytes"][begun].tolist(), begun.tolist(), until.tolist()
    number = 0
    for row, jump, is_lasting in zip(rows.tolist(), jumps.tolist(), lasts.tolist(), strict=True):
        while number < len(starts) and starts[number] < row:
            waiting[sizes[number]].append(number)
            number += 1
        if jump > 0:
            not_seen[jump] += 1
        elif not_seen[-jump]:
            # What another thread allocated, it has freed.
            not_seen[-jump] -= 1
        elif is_lasting:
            blocks = waiting[-jump]
            while blocks and limits[blocks[0]] < row:
                blocks.popleft()
            if blocks:
                freed_before[blocks.popleft()] = row
    return freed_before


def _jumps(columns: Mapping[str, IntArray], sign: IntArray) -> tuple[IntArray, IntArray, BoolArray]:
    """Return the rows at which the total changed by something else than the event itself, by how much, and for good.

    Events of two threads may have changed places: then the total is back after a few more of them.
    """
    total = columns["total_bytes"]
    rows = np.flatnonzero((total != NULL) & (sign != 0))
    change = sign[rows] * columns["size_bytes"][rows]
    jumps = np.diff(total[rows], prepend=total[rows[:1]] - change[:1]) - change
    level = np.cumsum(jumps)
    at = np.flatnonzero(jumps)
    coming = np.minimum(at[:, None] + np.arange(1, _NUM_COMING + 1), len(level) - 1)
    return rows[at], jumps[at], np.all(level[coming] <= level[at][:, None], axis=1)
