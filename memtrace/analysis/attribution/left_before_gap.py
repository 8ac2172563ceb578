"""What the step before a stretch of recording left behind for the next one: told by what other steps leave behind.

In: the allocations of a recording with gaps. Out: categories for blocks that were live when a stretch began and that
its first step lets go of. Every step leaves the same: outputs that a variable still holds, the loss, gradients. Where
one that was recorded leaves as many blocks of a size, which the next lets go of, those of the gap are the same things,
in the order in which they are let go of. What a step does after its optimizer, up to the next forward, is of it.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from memtrace.analysis.attribution.labels import DECISIONS, Decided
from memtrace.analysis.events.lifetimes import Lifetimes
from memtrace.analysis.events.moments import Epoch, Moments
from memtrace.schema.names import Decision, Phase
from memtrace.store.columns import NULL, IntArray
from memtrace.store.trace import RankTrace


class LeftBeforeGap:
    """The rule, for `run` to apply."""

    def __init__(self, rank: RankTrace, moments: Moments, lifetimes: Lifetimes, decided: Decided) -> None:
        """Prepare; `decided` is what will be completed."""
        self._moments, self._lifetimes, self._decided = moments, lifetimes, decided
        steps = rank.table("steps")
        ended = np.flatnonzero((steps["end_ns"] != NULL) & (steps["step"] > 0))
        self._start_ns, self._end_ns = steps["start_ns"][ended], steps["end_ns"][ended]
        phases = rank.table("phases")
        is_forward = phases["phase"] == rank.string_id(Phase.FORWARD.value)
        self._forwards = np.sort(moments.at_times(phases["start_ns"][is_forward])) if moments.has_times else ended[:0]

    def run(self) -> None:
        """Decide what is left before each stretch but the first."""
        known = [self._left_within(epoch) for epoch in self._moments.epochs]
        for number, epoch in enumerate(self._moments.epochs[1:], start=1):
            # What the stretch itself shows is nearest to it in time.
            reference = known[number] if known[number] is not None else known[number - 1]
            rows = self._left_before(epoch)
            if reference is not None and len(rows):
                # What is let go of before the next forward is not what the forward still finds.
                is_found, is_found_there = self._meets_forward(rows), self._meets_forward(reference)
                self._take_over(rows[is_found], reference[is_found_there])
                self._take_over(rows[~is_found], reference[~is_found_there])

    def _steps_of(self, epoch: Epoch) -> tuple[IntArray, IntArray]:
        """Return the moments at which the steps of a stretch begin and end; the first may have begun in the gap."""
        times = self._moments.time_ns
        first_ns, last_ns = int(times[epoch.start]), int(times[epoch.stop - 1])
        chosen = (self._end_ns > first_ns) & (self._end_ns <= last_ns)
        starts, ends = self._moments.at_times(self._start_ns[chosen]), self._moments.at_times(self._end_ns[chosen])
        return np.maximum(starts, epoch.start), self._up_to_forwards(ends, epoch)

    def _up_to_forwards(self, ends: IntArray, epoch: Epoch) -> IntArray:
        """Return where the next forward after each end begins; after the last, as far as after the one before."""
        following = np.append(self._forwards, epoch.stop)[np.searchsorted(self._forwards, ends, side="right")]
        tails = np.where(following < epoch.stop, following - ends, 0)
        if len(tails) > 1 and not tails[-1]:
            tails[-1] = tails[-2]
        return np.minimum(ends + tails, epoch.stop - 1)

    def _left_within(self, epoch: Epoch) -> IntArray | None:
        """Return what the last step but one of a stretch left for the last; `None` where it has no two steps."""
        starts, ends = self._steps_of(epoch)
        if len(starts) < 2:
            return None
        lifetimes = self._lifetimes
        before, boundary, end = int(starts[-2]), int(starts[-1]), int(ends[-1])
        made = ~lifetimes.is_initial & (lifetimes.start > before) & (lifetimes.start <= boundary)
        return np.flatnonzero(made & (lifetimes.in_use_end > boundary) & (lifetimes.in_use_end <= end))

    def _left_before(self, epoch: Epoch) -> IntArray:
        """Return the blocks live at the start of a stretch that its first step lets go of."""
        _, ends = self._steps_of(epoch)
        lifetimes = self._lifetimes
        if not len(ends):
            return np.zeros(0, np.int64)
        at_start = lifetimes.is_initial & (lifetimes.start == epoch.start)
        return np.flatnonzero(at_start & (lifetimes.in_use_end <= int(ends[0])))

    def _meets_forward(self, rows: IntArray) -> npt.NDArray[np.bool_]:
        """Return which allocations are there when the next forward begins: after their stretch does, or their step."""
        lifetimes = self._lifetimes
        ends = np.sort(self._moments.at_times(self._end_ns))
        of_step = np.append(ends, len(self._moments))[np.searchsorted(ends, lifetimes.start[rows])]
        since = np.where(lifetimes.is_initial[rows], lifetimes.start[rows], of_step)
        forward = np.append(self._forwards, len(self._moments))[np.searchsorted(self._forwards, since)]
        return np.asarray(lifetimes.in_use_end[rows] > forward)

    def _take_over(self, rows: IntArray, reference: IntArray) -> None:
        """Give blocks what the reference is, size by size, where there are as many."""
        sizes, ends, decided = self._lifetimes.size_bytes, self._lifetimes.in_use_end, self._decided
        rows, reference = (one[np.lexsort((ends[one], sizes[one]))] for one in (rows, reference))
        for size in np.unique(sizes[rows]).tolist():
            same, twins = rows[sizes[rows] == size], reference[sizes[reference] == size]
            if len(same) != len(twins):
                continue
            chosen = np.flatnonzero(decided.are_unknown(same) & ~decided.are_unknown(twins))
            decided.category[same[chosen]] = decided.category[twins[chosen]]
            decided.role[same[chosen]] = decided.role[twins[chosen]]
            decided.decision[same[chosen]] = DECISIONS.index(Decision.LIFETIME_RULE)
