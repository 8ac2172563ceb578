"""Sets of moments: half-open intervals of time, united, and how much of a window they cover.

In: starts and ends in ns, in any order, overlapping or not. Out: `Intervals`, disjoint and ascending. All of it is
whole numbers, so that parts add up to the nanosecond.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from memtrace.store.columns import IntArray


@dataclass(frozen=True, slots=True, eq=False)
class Intervals:
    """Disjoint half-open intervals in ascending order; two that touch are one."""

    start_ns: IntArray
    end_ns: IntArray
    _before_ns: IntArray
    """Time covered before each interval, and in the end by all of them."""

    @classmethod
    def united(cls, start_ns: IntArray, end_ns: IntArray) -> Intervals:
        """Return the union of intervals; those that are empty or end before they start hold no moment.

        >>> one = Intervals.united(np.array([5, 0, 1, 9]), np.array([7, 2, 3, 9]))
        >>> one.start_ns.tolist(), one.end_ns.tolist(), one.length_ns
        ([0, 5], [3, 7], 5)
        """
        kept = end_ns > start_ns
        if not kept.all():
            start_ns, end_ns = start_ns[kept], end_ns[kept]
        if np.any(start_ns[1:] < start_ns[:-1]):
            order = np.argsort(start_ns)
            start_ns, end_ns = start_ns[order], end_ns[order]
        reach = np.maximum.accumulate(end_ns)
        opens = np.ones(len(start_ns), np.bool_)
        opens[1:] = start_ns[1:] > reach[:-1]
        starts = start_ns[opens]
        ends = reach[np.append(np.flatnonzero(opens)[1:] - 1, len(reach) - 1)] if len(starts) else reach
        return cls(starts, ends, np.concatenate([[0], np.cumsum(ends - starts)]))

    @classmethod
    def none(cls) -> Intervals:
        """Return the empty set."""
        return cls.united(np.empty(0, np.int64), np.empty(0, np.int64))

    def __or__(self, other: Intervals) -> Intervals:
        """Return the moments that are in either."""
        if not len(other.start_ns):
            return self
        starts, ends = (self.start_ns, other.start_ns), (self.end_ns, other.end_ns)
        return Intervals.united(np.concatenate(starts), np.concatenate(ends))

    def __sub__(self, other: Intervals) -> Intervals:
        """Return the moments that are in this set and not in the other.

        >>> some, other = Intervals.united(np.array([0]), np.array([9])), Intervals.united(np.array([4]), np.array([6]))
        >>> (some - other).start_ns.tolist(), (some - other).end_ns.tolist()
        ([0, 6], [4, 9])
        """
        times = np.concatenate([self.start_ns, self.end_ns, other.start_ns, other.end_ns])
        mine, theirs = (np.ones(len(one.start_ns), np.int64) for one in (self, other))
        changes = np.concatenate([mine, -mine, 2 * theirs, -2 * theirs])
        order = np.argsort(times, kind="stable")
        times, running = times[order], np.cumsum(changes[order])
        alone = np.flatnonzero(running[:-1] == 1)
        return Intervals.united(times[alone], times[alone + 1])

    def merged(self, max_number: int) -> Intervals:
        """Return at most so many intervals: the shortest gaps between them are closed.

        >>> few = Intervals.united(np.array([0, 3, 90]), np.array([2, 5, 95])).merged(2)
        >>> few.start_ns.tolist(), few.end_ns.tolist()
        ([0, 90], [5, 95])
        """
        num_closed = len(self.start_ns) - max_number
        if num_closed <= 0:
            return self
        gaps = self.start_ns[1:] - self.end_ns[:-1]
        opens = np.ones(len(self.start_ns), np.bool_)
        opens[1 + np.argpartition(gaps, num_closed - 1)[:num_closed]] = False
        return Intervals.united(self.start_ns[opens], self.end_ns[np.append(np.flatnonzero(opens)[1:] - 1, len(gaps))])

    @property
    def length_ns(self) -> int:
        """The time that they cover."""
        return int(self._before_ns[-1])

    def within(self, start_ns: int, end_ns: int) -> int:
        """Return the time that they cover of a window.

        >>> Intervals.united(np.array([0, 5]), np.array([3, 7])).within(2, 6)
        2
        """
        return self._covered_before(end_ns) - self._covered_before(start_ns) if end_ns > start_ns else 0

    def _covered_before(self, time_ns: int) -> int:
        at = int(np.searchsorted(self.start_ns, time_ns))
        if at == 0:
            return 0
        # The last one that starts before may go on beyond.
        return int(self._before_ns[at]) - max(0, int(self.end_ns[at - 1]) - time_ns)
