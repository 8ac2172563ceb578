"""Which of many nested stretches of time was innermost at a time: phases, module scopes, steps.

In: starts and ends, Unix ns, an end of null meaning "never". Out: row numbers, -1 where there is none.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from memtrace.store.columns import NULL, IntArray

_NEVER = int(np.iinfo(np.int64).max)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Spans:
    """Nested stretches of time, ordered by start, the outer of two that start together first."""

    rows: IntArray
    """The row that each stretch came from."""
    start_ns: IntArray
    end_ns: IntArray
    parent: IntArray
    """Position of the stretch around it; -1 for none."""

    @classmethod
    def build(cls, start_ns: IntArray, end_ns: IntArray) -> Spans:
        """Return the stretches ready for searching. One loop over the stretches, of which there are few."""
        ends = np.where(end_ns == NULL, _NEVER, end_ns)
        order = np.lexsort((-ends, start_ns))
        starts, ends = start_ns[order], ends[order]
        parent = np.full(len(order), -1, np.int64)
        around: list[int] = []
        for position, (start, end) in enumerate(zip(starts.tolist(), ends.tolist(), strict=True)):
            # An end before ours is not around us: it is over, or of another thread.
            while around and (ends[around[-1]] <= start or ends[around[-1]] < end):
                around.pop()
            if around:
                parent[position] = around[-1]
            around.append(position)
        return cls(rows=order, start_ns=starts, end_ns=ends, parent=parent)

    def innermost(self, times_ns: IntArray) -> IntArray:
        """Return for each time the row of the innermost stretch that holds it: start included, end excluded."""
        found = self._positions(times_ns)
        return np.append(self.rows, -1)[found]

    def outermost(self, times_ns: IntArray, by_ns: IntArray) -> IntArray:
        """Return for each time the row of the outermost stretch that holds it and is over by another time."""
        # Position -1 reads what is appended: a stretch that never ends.
        ends, parent, rows = np.append(self.end_ns, _NEVER), np.append(self.parent, -1), np.append(self.rows, -1)
        found = self._positions(times_ns)
        found = np.where(ends[found] <= by_ns, found, -1)
        while True:
            around = parent[found]
            is_over = ends[around] <= by_ns
            if not is_over.any():
                return rows[found]
            found = np.where(is_over, around, found)

    def _positions(self, times_ns: IntArray) -> IntArray:
        """Return the position of the innermost stretch that holds each time; -1 for none."""
        found = np.searchsorted(self.start_ns, times_ns, side="right") - 1
        if not len(self.rows):
            return found
        while True:
            # Position -1 reads the last stretch, and is kept as -1.
            over = (found >= 0) & (self.end_ns[found] <= times_ns)
            if not over.any():
                return found
            found = np.where(over, self.parent[found], found)

    def at(self, time_ns: int) -> int:
        """Return `innermost` of one time."""
        return int(self.innermost(np.array([time_ns], np.int64))[0])
