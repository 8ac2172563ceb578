"""The timeline of a device, thinned for drawing: few points, and no spike lost.

In: `Levels` over all moments. Out: `Timeline`. Moments are cut into equal buckets; of each bucket the moments of the
smallest and the largest value are kept, for the total, for reserved and, more coarsely, for each category.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from memtrace.analysis.device.byte_levels import Levels
from memtrace.analysis.events.moments import Moments
from memtrace.analysis.results.report import Timeline
from memtrace.schema.names import Category
from memtrace.store.columns import IntArray

MAX_POINTS = 4000
"""About the most points of a timeline: more than a screen has pixels."""


def build_timeline(moments: Moments, levels: Levels, keep: Iterable[int]) -> Timeline:
    """Return the thinned timeline; the moments in `keep` (the peaks) are in it whatever happens."""
    by_category = sum_by_category(levels)
    chosen = _chosen(moments, levels, by_category, keep)
    return Timeline(
        event=moments.event[chosen],
        time_ns=moments.time_ns[chosen],
        by_category={name: level[chosen] for name, level in by_category.items() if level.any()},
        requested_bytes=levels.requested[chosen],
        reserved_bytes=None if levels.reserved is None else levels.reserved[chosen],
        allocated_bytes=None if levels.allocated is None else levels.allocated[chosen],
        gaps=_gaps(moments),
    )


def sum_by_category(levels: Levels) -> dict[str, IntArray]:
    """Return requested bytes by category over all moments, in the order of the glossary."""
    sums: dict[str, IntArray] = {}
    for category in Category:
        parts = [level for (one, _), level in levels.by_kind.items() if one is category]
        if parts:
            sums[category.value] = parts[0] if len(parts) == 1 else np.sum(parts, axis=0)
    return sums


def _chosen(moments: Moments, levels: Levels, by_category: dict[str, IntArray], keep: Iterable[int]) -> IntArray:
    """Return the moments to draw, ascending."""
    num = len(moments)
    if num <= MAX_POINTS:
        return np.arange(num)
    totals = [level for level in (levels.requested, levels.reserved) if level is not None]
    parts = list(by_category.values()) if len(by_category) > 1 else []
    # Half of the points go to the totals, half to the categories; each bucket takes two.
    picks = [extremes(level, MAX_POINTS // 4 // len(totals)) for level in totals]
    picks += [extremes(level, MAX_POINTS // 4 // len(parts)) for level in parts]
    edges = [moment for epoch in moments.epochs for moment in (epoch.start, epoch.stop - 1)]
    chosen: IntArray = np.unique(np.concatenate([*picks, np.array([*edges, *keep], np.int64)]))
    return chosen


def extremes(level: IntArray, num_buckets: int) -> IntArray:
    """Return the indices of the smallest and the largest value of each of so many equal buckets.

    >>> sorted(extremes(np.array([1, 9, 2, 3, 0, 4]), 2).tolist())
    [0, 1, 4, 5]
    """
    width = -(-len(level) // num_buckets)
    rows = -(-len(level) // width)
    padded = np.concatenate([level, np.full(rows * width - len(level), level[-1])]).reshape(rows, width)
    offsets = np.arange(rows) * width
    found = np.concatenate([offsets + padded.argmin(axis=1), offsets + padded.argmax(axis=1)])
    clipped: IntArray = np.minimum(found, len(level) - 1)
    return clipped


def _gaps(moments: Moments) -> tuple[tuple[int, int], ...]:
    """Return the stretches of time between epochs."""
    if not moments.has_times:
        return ()
    pairs = zip(moments.epochs[:-1], moments.epochs[1:], strict=True)
    edges = ((int(moments.time_ns[one.stop - 1]), int(moments.time_ns[two.start])) for one, two in pairs)
    return tuple((start, end) for start, end in edges if end > start)
