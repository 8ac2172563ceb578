"""What allocations are for where no hook told: guesses from stacks, lifetimes and sizes, never shown as facts.

In: a rank with phases, inferred or not, and its allocations. Out: codes of category, decision and role for each; what
no rule explains stays unknown, since wrong is worse than unknown. Gradients come first (made in backward, alive past
it): as many blocks as there are gradients of a size, live before the first forward, are parameters. What an optimizer
step makes and keeps is its state; a state or parameter that a step replaces hands its category on. What lives within a
step is decided as in a recording.
"""

from __future__ import annotations

from collections import Counter, defaultdict

import numpy as np
import numpy.typing as npt

from memtrace.analysis.attribution.event_roles import alloc_roles, alloc_rows
from memtrace.analysis.attribution.inferred_residents import Residents, choose_residents
from memtrace.analysis.attribution.labels import CATEGORIES, Decided
from memtrace.analysis.attribution.lifetime_rules import LifetimeRules
from memtrace.analysis.attribution.optimizer_ranges import (
    ZERO_MARK,
    annotated_optimizer,
    annotated_spans,
    num_sets,
    num_states,
)
from memtrace.analysis.attribution.size_matching import count_sizes, match_sizes
from memtrace.analysis.attribution.stack_roles import (
    BLAS_WORKSPACE,
    BUCKET,
    COLLECTIVE,
    COMMUNICATION,
    REDUCTION,
    roles_of,
    stack_roles,
)
from memtrace.analysis.events.lifetimes import Lifetimes
from memtrace.analysis.events.moments import Moments
from memtrace.schema.names import Category, Decision, Phase
from memtrace.store.columns import IntArray
from memtrace.store.trace import RankTrace

_BoolArray = npt.NDArray[np.bool_]
_NONE = -1
_BUCKET_SLACK = 0.02
"""Buckets are padded; beside them lie a few small buffers."""
_WITHIN_A_STEP = (Category.ACTIVATION, Category.TEMPORARY, Category.AUTOGRAD_DETAIL, Category.INPUT)


class Inference:
    """The rules, applied in order; the first that explains an allocation decides it."""

    def __init__(self, rank: RankTrace, moments: Moments, lifetimes: Lifetimes, decided: Decided) -> None:
        self._rank, self._moments, self._lifetimes = rank, moments, lifetimes
        self._decided = decided
        self._roles = self._alloc_roles()
        table = rank.table("phases")
        names = [rank.text(int(one)) for one in table["phase"]]
        # A recomputation is a part of the backward around it.
        rows = [row for row, name in enumerate(names) if name in _OUTER]
        self._names = [names[row] for row in rows]
        self._first, self._stop = (
            np.searchsorted(moments.time_ns, table[column][rows]) for column in ("start_ns", "end_ns")
        )
        self._name_codes = np.array([*map(_OUTER.index, self._names), _NONE], np.int8)
        self._phase = self._phase_of(lifetimes.start)
        self._optimizer = annotated_optimizer(rank)
        self._only_steps = Phase.FORWARD.value not in self._names
        """Whether annotations tell steps, and nothing tells forward and backward."""
        self._zeroed = self._zeroed_in()

    def _alloc_roles(self) -> IntArray:
        """Return the flags of every allocation's stack, or those that a repetition of its step tells."""
        live, rows = self._lifetimes, alloc_rows(self._rank)
        roles = roles_of(stack_roles(self._rank), live.stack)
        of_event = np.zeros(len(self._rank.table("events")) + 1, np.int64)
        of_event[rows] = alloc_roles(self._rank, rows)
        return np.where(live.is_initial, roles, of_event[self._moments.event[live.start]])

    def run(self) -> None:
        """Apply every rule."""
        self._give(self._is(BLAS_WORKSPACE) & self._outlives_phase(), Category.WORKSPACE, Decision.STACK_RULE)
        gradients = self._gradients()
        self._residents(gradients)
        self._communication()
        self._hand_on()
        self._states()
        if not self._only_steps:
            self._within_steps()

    def _phase_of(self, moment: IntArray) -> npt.NDArray[np.intp]:
        """Return the phase that holds each moment; none for what lived before the history."""
        at = np.searchsorted(self._first, moment, side="right") - 1
        inside = (at >= 0) & (moment < self._stop[at]) & ~self._lifetimes.is_initial
        return np.where(inside, at, _NONE)

    def _is(self, role: int) -> _BoolArray:
        return (self._roles & role) > 0

    def _in(self, name: Phase) -> _BoolArray:
        """Return which allocations were made in a phase of this name."""
        return np.asarray(self._name_codes[self._phase] == _OUTER.index(name.value))

    def _lives_on(self) -> _BoolArray:
        """Return which allocations never ended."""
        return np.asarray(self._lifetimes.in_use_end >= self._lifetimes.num_moments)

    def _outlives_phase(self) -> _BoolArray:
        """Return which allocations outlive the phase that made them."""
        stop = np.append(self._stop, 0)[self._phase]
        return (self._phase >= 0) & ((self._lifetimes.in_use_end >= stop) | self._lives_on())

    def _give(self, chosen: _BoolArray | IntArray, category: Category, decision: Decision) -> None:
        """Decide the chosen allocations that nothing decided yet."""
        rows = np.flatnonzero(chosen) if chosen.dtype == np.bool_ else np.asarray(chosen, np.int64)
        self._decided.give(rows[self._decided.are_unknown(rows)], category, decision)

    def _gradients(self) -> IntArray:
        """Return what was made in backward and lives past it."""
        made = self._in(Phase.BACKWARD) & self._outlives_phase() & self._decided.are_unknown()
        found = made & ~self._is(COMMUNICATION)
        return np.flatnonzero(found | (self._zeroed >= 0) if self._only_steps else found)

    def _zeroed_in(self) -> npt.NDArray[np.intp]:
        """Return which `zero_grad` freed each allocation that no optimizer step made; none for most."""
        spans = annotated_spans(self._rank, ZERO_MARK)
        starts, stops = (np.searchsorted(self._moments.time_ns, [span[at] for span in spans]) for at in (0, 1))
        live = self._lifetimes
        at = np.searchsorted(starts, live.in_use_end, side="right") - 1
        inside = (at >= 0) & (self._phase == _NONE) & ~self._lives_on()
        inside &= live.in_use_end < np.append(stops, 0)[at]
        return np.where(inside, at, _NONE)

    def _residents(self, gradients: IntArray) -> None:
        """Decide what lived before the first phase and through it, and with it which blocks are gradients."""
        live, size = self._lifetimes, self._lifetimes.size_bytes
        first, stop = int(self._first[0]), int(self._stop[-1 if self._only_steps else 0])
        resident = (live.start <= first) & ((live.in_use_end > stop) | self._lives_on())
        resident &= (self._phase != 0) & self._decided.are_unknown()
        replaced = self._parameters_replaced_by_first_step(self._largest_counts(gradients))
        self._give(replaced, Category.PARAMETER, Decision.LIFETIME_RULE)
        chosen = choose_residents(
            Residents(
                rows=np.flatnonzero(resident),
                lifetimes=live,
                roles=self._roles,
                freed_in_step=self._freed_in_step(),
                states=count_sizes(size[self._kept_by_steps()[0]]),
                num_states=num_states(self._optimizer),
                has_backward=Phase.BACKWARD.value in self._names,
                num_sets=num_sets(self._optimizer),
                has_collectives=bool(self._is(COMMUNICATION).any()),
                is_accelerator=self._is_accelerator(),
            ),
            self._largest_counts(gradients),
        )
        for category, decision, rows in chosen:
            self._give(rows, category, decision)
        # Which of several blocks of a size is the parameter need not be known to tell its gradient.
        group = self._zeroed if self._only_steps else self._phase
        counts = count_sizes(size[resident]) + count_sizes(size[replaced])
        matched = match_sizes(gradients, size, counts, per_phase=group)
        self._give(matched, Category.GRADIENT, Decision.LIFETIME_RULE)

    def _parameters_replaced_by_first_step(self, gradients: Counter[int]) -> IntArray:
        """Return what a first step frees, as many as there are gradients of a size, where it keeps as many of what it
        makes for each state, and once more: with the first states, parameters are made anew.

        Needed where nothing tells a forward: there parameters are else what no step frees.
        """
        limit, live = num_states(self._optimizer), self._lifetimes
        if not self._only_steps or limit is None:
            return np.zeros(0, np.int64)
        # Annotations say where a step ends: what is freed right after it are gradients.
        in_first = (live.in_use_end >= self._first[0]) & (live.in_use_end < self._stop[0])
        freed = in_first & (live.start < self._first[0]) & self._decided.are_unknown()
        made = count_sizes(live.size_bytes[self._kept_by_steps()[0] & (self._phase == 0)])
        sizes = [
            one
            for one, count in count_sizes(live.size_bytes[freed]).items()
            if count == gradients[one] and made[one] == (limit + 1) * count
        ]
        return np.flatnonzero(freed & np.isin(live.size_bytes, sizes))

    def _communication(self) -> None:
        """Decide what a distributed run makes for its collectives, and which of it are gradients."""
        live, made = self._lifetimes, self._is(COMMUNICATION) & self._decided.are_unknown()
        # Reduced gradients are what a collective leaves for the optimizer; all else it makes is its own.
        reduced = made & self._is(REDUCTION) & ~self._is(COLLECTIVE)
        reduced &= self._in(Phase.BACKWARD) & self._outlives_phase()
        self._give(reduced, Category.GRADIENT, Decision.STACK_RULE)
        if not self._decided.are(Category.GRADIENT).any():
            # Gradients may be views of the buckets, which then are as large as all parameters together.
            buckets = made & self._is(BUCKET) & self._outlives_phase()
            total = int(live.size_bytes[self._decided.are(Category.PARAMETER)].sum())
            if abs(int(live.size_bytes[buckets].sum()) - total) > _BUCKET_SLACK * total:
                made &= ~buckets
            self._give(buckets & made, Category.GRADIENT, Decision.STACK_RULE)
        self._give(made, Category.COMMUNICATION, Decision.STACK_RULE)

    def _is_accelerator(self) -> bool:
        devices = self._rank.table("events")["device"][self._moments.rows[:1]]
        return len(devices) > 0 and self._rank.text(int(devices[0])) != "cpu"

    def _freed_in_step(self) -> _BoolArray:
        """Return which allocations an optimizer step freed."""
        end = self._lifetimes.in_use_end
        at = np.searchsorted(self._first, end, side="right") - 1
        is_step = np.array([*(one == Phase.OPTIMIZER.value for one in self._names), False])
        return np.asarray(is_step[at] & (at >= 0) & (end <= self._stop[at]) & ~self._lives_on())

    def _largest_counts(self, rows: IntArray) -> Counter[int]:
        """Return how many of these there are of each size in the phase that has most of it."""
        largest: Counter[int] = Counter()
        group = self._zeroed if self._only_steps else self._phase
        for one in np.unique(group[rows]).tolist():
            largest |= count_sizes(self._lifetimes.size_bytes[rows[group[rows] == one]])
        return largest

    def _step_decision(self) -> Decision:
        return Decision.ANNOTATION if self._optimizer is not None else Decision.STACK_RULE

    def _hand_on(self) -> None:
        """Let what an optimizer step makes and keeps take over from what it frees."""
        live, steps = self._lifetimes, self._step_rows()
        made = np.flatnonzero(self._kept_by_steps()[0] & self._decided.are_unknown())
        lasting = (Category.PARAMETER, Category.OPTIMIZER_STATE)
        ending = np.concatenate([made, np.flatnonzero(self._decided.are(*lasting))])
        # Where the history ends with a step, what lives on was not freed by it.
        ending = ending[~self._lives_on()[ending]]
        ending = ending[np.argsort(live.in_use_end[ending], kind="stable")]
        made = made[np.argsort(self._phase[made], kind="stable")]
        ends = live.in_use_end[ending]
        passing = np.flatnonzero(self._kept_by_steps()[1])
        passing = passing[np.argsort(self._phase[passing], kind="stable")]
        for at in steps.tolist():
            new = _of_phase(made, self._phase, at)
            old = ending[np.searchsorted(ends, self._first[at]) : np.searchsorted(ends, self._stop[at], side="right")]
            old = old[self._decided.are(*lasting, among=old)]
            if len(new) and len(old):
                self._hand_over(new, old, _of_phase(passing, self._phase, at))

    def _hand_over(self, made: IntArray, freed: IntArray, passing: IntArray) -> None:
        """Give what a step made and kept the category of what it freed, directly or by way of what passed."""
        live = self._lifetimes
        passing = passing[np.isin(live.size_bytes[passing], live.size_bytes[freed])]
        waiting: dict[int, list[int]] = defaultdict(list)
        category = {int(row): int(self._decided.category[row]) for row in freed}
        to_keep = set(made.tolist())
        events = [(int(live.start[row]), 0, int(row)) for one in (made, passing) for row in one]
        events += [(int(live.in_use_end[row]), 1, int(row)) for one in (freed, passing) for row in one]
        # In order of time: a free takes its successor from the newest block of its size.
        for _, is_free, row in sorted(events):
            same = waiting[int(live.size_bytes[row])]
            if not is_free:
                same.append(row)
                continue
            if row in same:
                same.remove(row)
            if row in category and same:
                category[same[-1]] = category[row]
                if same[-1] in to_keep:
                    self._give(np.array([same.pop()]), CATEGORIES[category[row]], self._step_decision())

    def _step_rows(self) -> IntArray:
        """Return the phases that are optimizer steps."""
        return np.flatnonzero(self._name_codes[:-1] == _OUTER.index(Phase.OPTIMIZER.value))

    def _kept_by_steps(self) -> tuple[_BoolArray, _BoolArray]:
        """Return which allocations an optimizer step made for good, and which it made and was done with.

        The last frees of a step come after its last alloc, by which its end is told: only what the next phase finds
        outlives it.
        """
        live = self._lifetimes
        made = self._in(Phase.OPTIMIZER)
        next_start = np.append(self._first[1:], [live.num_moments, live.num_moments])[self._phase]
        kept = made & ((live.in_use_end > next_start) | self._lives_on())
        kept[self._kept_by_last_step(kept)] = True
        return kept, made & ~kept

    def _kept_by_last_step(self, kept: _BoolArray) -> IntArray:
        """Return what the last step made where the one before kept the same: after it a program may let go of all.

        They are the same where both make blocks of the same sizes in the same order.
        """
        steps = self._step_rows()
        if len(steps) < 2 or steps[-1] != len(self._first) - 1:
            return np.zeros(0, np.int64)
        live = self._lifetimes
        before, last = (np.flatnonzero(self._phase == at) for at in steps[-2:].tolist())
        before, last = (rows[np.argsort(live.start[rows], kind="stable")] for rows in (before, last))
        if not np.array_equal(live.size_bytes[before], live.size_bytes[last]):
            return np.zeros(0, np.int64)
        again: IntArray = last[kept[before] & (live.in_use_end[last] > self._stop[steps[-1]])]
        return again

    def _states(self) -> None:
        """Decide what optimizer steps made for good: what a later step still finds, or has the size of a parameter."""
        live = self._lifetimes
        kept, passing = self._kept_by_steps()
        steps = self._first[self._step_rows()]
        following = np.append(steps, live.num_moments)[np.searchsorted(steps, live.start, side="right")]
        parameters = np.unique(live.size_bytes[self._decided.are(Category.PARAMETER)])
        lasting = (live.in_use_end > following) | np.isin(live.size_bytes, parameters)
        lasting &= ~np.isin(live.size_bytes, self._replaced_with_parameters())
        self._give(kept & lasting, Category.OPTIMIZER_STATE, self._step_decision())
        self._give(passing, Category.TEMPORARY, Decision.LIFETIME_RULE)

    def _replaced_with_parameters(self) -> list[int]:
        """Return the sizes of which steps freed more than there are states, and nothing tells which of it those are."""
        limit, live = num_states(self._optimizer), self._lifetimes
        if limit is None:
            return []
        freed = self._freed_in_step() & (self._phase == _NONE) & self._decided.are_unknown()
        gradients = self._largest_counts(np.flatnonzero(self._decided.are(Category.GRADIENT)))
        counts = count_sizes(live.size_bytes[freed])
        return [size for size, count in counts.items() if 0 < limit * gradients[size] < count]

    def _within_steps(self) -> None:
        """Decide what lives within a step as in a recording, whose phases are known."""
        ruled = self._decided.copy()
        LifetimeRules(self._rank, self._moments, self._lifetimes, ruled).run()
        within = ruled.are(*_WITHIN_A_STEP)
        # What was there before the first phase may be a buffer or a frozen parameter as well as data.
        chosen = (
            within & self._decided.are_unknown() & ~self._is(COMMUNICATION) & (self._lifetimes.start >= self._first[0])
        )
        drawn = self._drawn_each_step(chosen & ruled.are(Category.INPUT))
        chosen &= ~ruled.are(Category.INPUT) | drawn
        self._decided.take(chosen, ruled)

    def _drawn_each_step(self, inputs: _BoolArray) -> _BoolArray:
        """Return which allocations are inputs of a size that comes at least twice, as each step's batch does."""
        sizes, counts = np.unique(self._lifetimes.size_bytes[inputs], return_counts=True)
        return inputs & np.isin(self._lifetimes.size_bytes, sizes[counts > 1])


def _of_phase(rows: IntArray, phase: npt.NDArray[np.intp], at: int) -> IntArray:
    """Return those of some rows, in the order of their phases, that lie in one phase."""
    phases = phase[rows]
    return rows[np.searchsorted(phases, at) : np.searchsorted(phases, at, side="right")]


_OUTER = (Phase.FORWARD.value, Phase.BACKWARD.value, Phase.OPTIMIZER.value)


def infer(rank: RankTrace, moments: Moments, lifetimes: Lifetimes, decided: Decided) -> None:
    """Complete what is decided; nothing where neither a forward nor a step is known to tell lifetimes by."""
    phases = {rank.text(int(one)) for one in np.unique(rank.table("phases")["phase"])}
    if phases & {Phase.FORWARD.value, Phase.OPTIMIZER.value} and len(lifetimes):
        Inference(rank, moments, lifetimes, decided).run()
