"""Where in the training loop each allocation was born and died: the facts that rules about lifetimes rest on.

In: the phases and steps that hooks recorded, and the allocations of a device. Out: `Placement`, arrays over some rows
of `Lifetimes`. No loop over allocations; phases and steps are few.

What no phase covers belongs to what comes next: a loss computed after the last module is forward if a backward follows,
and a batch drawn before a forward is preparation for it.

    setup │ draw │ forward … │ loss │ backward [recompute] │ clip │ optimizer │ draw │ forward …
      gap │  gap │           │ gap  │                      │  gap │           │  gap │
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from memtrace.analysis.events.innermost import Spans
from memtrace.analysis.events.lifetimes import Lifetimes
from memtrace.analysis.events.moments import Moments
from memtrace.schema.names import Phase
from memtrace.store.columns import NULL, IntArray
from memtrace.store.trace import RankTrace

NEVER = int(np.iinfo(np.int64).max)
"""The time of what did not happen while events were recorded."""

PHASES = tuple(Phase)
"""Phases by their code in `Placement.phase`."""

BETWEEN = -1
"""Code of what was born in no phase, and not in a gap that leads to a backward."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Placement:
    """Birth and death of some allocations in the training loop; times are Unix ns."""

    birth_ns: IntArray
    death_ns: IntArray
    """When it was freed; `NEVER` where that was not recorded."""
    phase: npt.NDArray[np.int8]
    """Code of the innermost phase that it was born in: index into `PHASES`, or `BETWEEN`."""
    microbatch: IntArray
    """Microbatch of that phase; null outside any."""
    end_ns: IntArray
    """When that phase ended, for a backward the outermost one; `NEVER` where it broke off, 0 outside any."""
    last_alloc_ns: IntArray
    """In a phase that broke off, the last birth: what died later died of the failure. 0 in others."""
    backward_start_ns: IntArray
    """Start of the first backward after the phase (for a recomputation: 0, it is inside); `NEVER` without one."""
    backward_end_ns: IntArray
    """End of the last backward before the next forward (for a recomputation: of the one around it)."""
    next_phase: npt.NDArray[np.int8]
    """Code of the phase that begins next after its birth, at the outermost level; `BETWEEN` if none does."""
    next_forward_ns: IntArray
    """When the first forward after its birth begins, of training or evaluation; `NEVER` if none does."""
    birth_step: IntArray
    """Ends of steps before its birth."""
    num_steps_lived: IntArray
    """Ends of steps that it lived through, as far as events were recorded."""
    is_setup: npt.NDArray[np.bool_]
    """Whether it was born before the first forward, backward or optimizer step."""


def build_placement(rank: RankTrace, moments: Moments, lifetimes: Lifetimes, rows: IntArray) -> Placement:
    """Return where these allocations, all of them born while events were recorded, were born and died."""
    loop = _Loop(rank)
    stretch_of_moment = _stretches(loop.boundaries_ns, moments.time_ns)
    # Between two boundaries nothing of the loop changes: what holds at the first one holds up to the second.
    at = _Stretches(loop, np.append(loop.boundaries_ns[:1] - 1, loop.boundaries_ns))
    end, stop = lifetimes.in_use_end[rows], _stop_of_epoch(moments, lifetimes.start[rows])
    birth = moments.time_ns[lifetimes.start[rows]]
    stretch = stretch_of_moment[lifetimes.start[rows]]
    last_stretch = stretch_of_moment[np.minimum(end, stop - 1)]
    return Placement(
        birth_ns=birth,
        # What lived when its epoch ended died at no known time.
        death_ns=np.where(end == stop, NEVER, moments.time_ns[np.minimum(end, len(moments) - 1)]),
        phase=at.phase[stretch],
        microbatch=at.microbatch[stretch],
        end_ns=at.end_ns[stretch],
        last_alloc_ns=_last_births(np.where(at.broke_off, at.position, -1)[stretch], birth),
        backward_start_ns=at.backward_start_ns[stretch],
        backward_end_ns=at.backward_end_ns[stretch],
        next_phase=at.next_phase[stretch],
        next_forward_ns=at.next_forward_ns[stretch],
        birth_step=at.step[stretch],
        num_steps_lived=at.step[last_stretch] - at.step[stretch],
        is_setup=birth < loop.training_start_ns,
    )


class _Stretches:
    """What holds from each of some times on."""

    def __init__(self, loop: _Loop, times_ns: IntArray) -> None:
        self.position = loop.position_at(times_ns)
        phase, end = loop.code[self.position], loop.end_ns[self.position]
        next_top = np.searchsorted(loop.top_start_ns, times_ns, side="right")
        self.next_phase = loop.top_code[next_top]
        # What is computed after the last module and before backward is still forward.
        is_tail = (phase == BETWEEN) & (self.next_phase == _code(Phase.BACKWARD))
        self.phase = np.where(is_tail, _code(Phase.FORWARD), phase).astype(np.int8)
        self.end_ns = np.where(is_tail, loop.top_start_ns[next_top], end)
        self.broke_off = self.end_ns == NEVER
        self.microbatch = np.where(is_tail, loop.top_microbatch[next_top], loop.microbatch[self.position])
        first, last = loop.backwards_after(self.end_ns)
        is_inside = self.phase == _code(Phase.RECOMPUTE)
        self.backward_start_ns = np.where(is_inside, 0, first)
        self.backward_end_ns = np.where(is_inside, loop.backward_end_ns[self.position], last)
        self.next_forward_ns = loop.reading_start_ns[np.searchsorted(loop.reading_start_ns, times_ns, side="right")]
        self.step = loop.num_step_ends(times_ns)


class _Loop:
    """The phases and steps of a rank, as arrays with a spare entry at the end for "none"."""

    def __init__(self, rank: RankTrace) -> None:
        table = rank.table("phases")
        self._spans = Spans.build(table["start_ns"], table["end_ns"])
        rows = self._spans.rows
        names = {rank.string_id(phase.value): _code(phase) for phase in Phase}
        codes = np.array([names.get(one, BETWEEN) for one in table["phase"][rows].tolist()], np.int8)
        self._position_of_row = np.argsort(rows)
        top, backward = self._around(codes)
        self.code = np.append(codes, np.int8(BETWEEN))
        self.microbatch = np.append(table["microbatch"][rows], NULL)
        # What a backward inside a backward makes may well outlive it: the outer one decides.
        own = np.arange(len(codes))
        ends = self._spans.end_ns
        self.end_ns = np.append(ends[np.where((codes == _code(Phase.BACKWARD)) & (backward >= 0), backward, own)], 0)
        self.backward_end_ns = np.append(np.where(backward >= 0, ends[backward], 0) if len(ends) else ends, 0)
        is_top = top == own
        self.top_start_ns = np.append(self._spans.start_ns[is_top], NEVER)
        self.top_code = np.append(codes[is_top], np.int8(BETWEEN))
        self.top_microbatch = np.append(table["microbatch"][rows][is_top], NULL)
        is_forward = codes == _code(Phase.FORWARD)
        self.forward_start_ns = np.append(self._spans.start_ns[is_forward], NEVER)
        is_reading = is_forward | (codes == _code(Phase.EVALUATION))
        self.reading_start_ns = np.append(self._spans.start_ns[is_reading], NEVER)
        is_outer = (codes == _code(Phase.BACKWARD)) & (backward == own)
        self._backward_start_ns = np.append(self._spans.start_ns[is_outer], NEVER)
        self._backward_end_ns = np.append(ends[is_outer], 0)
        training = np.isin(codes, [_code(one) for one in (Phase.FORWARD, Phase.BACKWARD, Phase.OPTIMIZER)])
        self.training_start_ns = int(self._spans.start_ns[training].min()) if training.any() else NEVER
        step_ends = rank.table("steps")["end_ns"]
        self._step_end_ns = np.sort(step_ends[step_ends != NULL])
        # What happens in the very nanosecond in which a step ends still belongs to it.
        changes = [self._spans.start_ns, ends[ends != NEVER], self._step_end_ns + 1]
        self.boundaries_ns = np.unique(np.concatenate(changes))

    def _around(self, codes: npt.NDArray[np.int8]) -> tuple[IntArray, IntArray]:
        """Return for each phase the outermost phase around it, itself included, and the outermost backward (or -1)."""
        top, backward = np.arange(len(codes)), np.full(len(codes), -1, np.int64)
        for position, parent in enumerate(self._spans.parent.tolist()):
            if parent >= 0:
                top[position], backward[position] = top[parent], backward[parent]
            if backward[position] < 0 and codes[position] == _code(Phase.BACKWARD):
                backward[position] = position
        return top, backward

    def position_at(self, times_ns: IntArray) -> IntArray:
        """Return the position of the innermost phase at each time; that of the spare entry for none."""
        row = self._spans.innermost(times_ns)
        if not len(self._position_of_row):
            return np.zeros(len(times_ns), np.int64)
        return np.where(row >= 0, self._position_of_row[row], len(self.code) - 1)

    def backwards_after(self, times_ns: IntArray) -> tuple[IntArray, IntArray]:
        """Return start of the first backward from each time on, and end of the last one before a forward follows it."""
        first = np.searchsorted(self._backward_start_ns, times_ns, side="left")
        start = self._backward_start_ns[first]
        next_forward = self.forward_start_ns[np.searchsorted(self.forward_start_ns, start, side="left")]
        last = np.searchsorted(self._backward_start_ns, next_forward, side="left") - 1
        return start, np.where(start == NEVER, 0, self._backward_end_ns[last])

    def num_step_ends(self, times_ns: IntArray) -> IntArray:
        """Return how many steps have ended before each time."""
        found: IntArray = np.searchsorted(self._step_end_ns, times_ns, side="left")
        return found


def _stretches(boundaries_ns: IntArray, times_ns: IntArray) -> IntArray:
    """Return for each of ascending times how many boundaries are at or before it.

    >>> _stretches(np.array([10, 20]), np.array([5, 10, 15, 25])).tolist()
    [0, 1, 1, 2]
    """
    first = np.searchsorted(times_ns, boundaries_ns, side="left")
    return np.cumsum(np.bincount(first, minlength=len(times_ns) + 1))[:-1]


def _stop_of_epoch(moments: Moments, moment: IntArray) -> IntArray:
    """Return one past the last moment of the epoch of each moment."""
    stops = np.array([epoch.stop for epoch in moments.epochs], np.int64)
    if len(stops) == 1:
        return np.full(len(moment), stops[0], np.int64)
    found: IntArray = stops[np.searchsorted(stops, moment, side="right")]
    return found


def _last_births(position: IntArray, birth_ns: IntArray) -> IntArray:
    """Return for each the last birth at the same position; 0 at a negative one."""
    found = np.zeros(len(position), np.int64)
    rows = np.flatnonzero(position >= 0)
    if len(rows):
        last = np.zeros(int(position.max()) + 1, np.int64)
        np.maximum.at(last, position[rows], birth_ns[rows])
        found[rows] = last[position[rows]]
    return found


def _code(phase: Phase) -> int:
    return PHASES.index(phase)
