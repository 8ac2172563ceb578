"""What lives to the end of a recorded stretch is taken to be there behind the gap, as far as bytes there are not known.

In: allocations of a `Case`. Out: `Cut`s. The watch on the CPU and an accelerator list older blocks behind a gap, at the
same addresses; torch's profiler knows nothing of them but their sum, unless somebody owns them.
"""

from __future__ import annotations

import numpy as np

from memtrace.analysis.advice.case import Case, Cut
from memtrace.store.columns import IntArray


def cuts_over_gaps(case: Case, rows: IntArray) -> list[Cut]:
    """Return the cut of some allocations, and of what they are in later stretches of the recording."""
    cuts, lifetimes = [case.cut(rows)], case.lifetimes
    epochs = case.history.moments.epochs
    open_rows, num_bytes = np.zeros(0, np.int64), 0
    for epoch in epochs:
        again = _again(case, open_rows, epoch.start)
        again = again[~np.isin(again, rows)]
        known = int(lifetimes.size_bytes[again].sum())
        free = int(case.history.levels.base[epoch.start : epoch.stop].min())
        unknown = max(min(num_bytes - known, free), 0)
        one = np.ones(1, np.int64)
        cuts += [case.cut(again), Cut(start=epoch.start * one, end=epoch.stop * one, size_bytes=unknown * one)]
        own = np.concatenate(
            [again, rows[(lifetimes.start[rows] >= epoch.start) & (lifetimes.start[rows] < epoch.stop)]]
        )
        open_rows = own[lifetimes.in_use_end[own] >= epoch.stop]
        num_bytes = int(lifetimes.size_bytes[open_rows].sum()) + unknown
    return cuts


def _again(case: Case, rows: IntArray, start: int) -> IntArray:
    """Return the blocks that a stretch begins with and that are where some allocations were, and as large."""
    lifetimes = case.lifetimes
    first = np.flatnonzero(lifetimes.is_initial & (lifetimes.start == start))
    before = set(zip(lifetimes.address[rows].tolist(), lifetimes.size_bytes[rows].tolist(), strict=True))
    places = zip(lifetimes.address[first].tolist(), lifetimes.size_bytes[first].tolist(), strict=True)
    return first[np.fromiter((place in before for place in places), np.bool_, len(first))]
