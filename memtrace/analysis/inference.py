"""What the allocations of a snapshot are for: guesses from stacks, lifetimes and sizes, never shown as facts.

In: a rank with inferred phases, and its allocations. Out: codes of category and decision for each allocation; what no
rule explains stays unknown. Gradients come first (made in backward, alive past it): parameters are as large as they
are, one to one, and so are optimizer states. A state or parameter that a step replaces hands its category on.
"""

from __future__ import annotations

from collections import Counter, defaultdict

import numpy as np
import numpy.typing as npt

from memtrace.analysis.lifetimes import Lifetimes
from memtrace.analysis.moments import Moments
from memtrace.analysis.size_matching import count_sizes, match_sizes, sets_of_sizes
from memtrace.analysis.stack_roles import BLAS_WORKSPACE, OPTIMIZER_SETUP, SETUP, roles_of, stack_roles
from memtrace.schema.names import Category, Decision, Phase
from memtrace.store.columns import IntArray
from memtrace.store.trace import RankTrace

_CATEGORIES, _DECISIONS = tuple(Category), tuple(Decision)
_NONE = -1


class Inference:
    """The rules, applied in order; the first that explains an allocation decides it."""

    def __init__(self, rank: RankTrace, moments: Moments, lifetimes: Lifetimes) -> None:
        self._lifetimes = lifetimes
        self.category = np.full(len(lifetimes), _CATEGORIES.index(Category.UNKNOWN), np.int8)
        self.decision = np.full(len(lifetimes), _DECISIONS.index(Decision.UNKNOWN), np.int8)
        self._roles = roles_of(stack_roles(rank), lifetimes.stack)
        table = rank.table("phases")
        self._names = [rank.text(int(one)) for one in table["phase"]]
        self._first, self._stop = (np.searchsorted(moments.time_ns, table[name]) for name in ("start_ns", "end_ns"))
        self._phase = self._phase_of(lifetimes.start)
        self._annotated = any(
            (rank.text(int(one)) or "").startswith("Optimizer.step#") for one in rank.table("annotations")["name"]
        )

    def run(self) -> None:
        """Apply every rule."""
        self._give(self._is(BLAS_WORKSPACE) & self._outlives_phase(), Category.WORKSPACE, Decision.STACK_RULE)
        gradients = self._gradients()
        self._residents(gradients)
        for at, name in enumerate(self._names):
            if name == Phase.OPTIMIZER.value:
                self._hand_on(at)
        self._rest()

    def _phase_of(self, moment: IntArray) -> npt.NDArray[np.intp]:
        """Return the row of the phase that holds each moment; none for what lived before the history."""
        row = np.searchsorted(self._first, moment, side="right") - 1
        inside = (row >= 0) & (moment < self._stop[row]) & ~self._lifetimes.is_initial
        return np.where(inside, row, _NONE)

    def _is(self, role: int) -> npt.NDArray[np.bool_]:
        return (self._roles & role) > 0

    def _in(self, name: Phase) -> npt.NDArray[np.bool_]:
        """Return which allocations were made in a phase of this name."""
        named = np.array([*(one == name.value for one in self._names), False])
        return np.asarray(named[self._phase])

    def _outlives_phase(self) -> npt.NDArray[np.bool_]:
        """Return which allocations outlive the phase that made them."""
        stop = np.append(self._stop, 0)[self._phase]
        return (self._phase >= 0) & (
            (self._lifetimes.in_use_end > stop) | (self._lifetimes.in_use_end >= self._lifetimes.num_moments)
        )

    def _unknown(self) -> npt.NDArray[np.bool_]:
        return np.asarray(self.decision == _DECISIONS.index(Decision.UNKNOWN))

    def _give(self, chosen: npt.NDArray[np.bool_] | IntArray, category: Category, decision: Decision) -> None:
        """Decide the chosen allocations that nothing decided yet."""
        rows = np.flatnonzero(chosen) if chosen.dtype == np.bool_ else np.asarray(chosen, np.int64)
        rows = rows[self.decision[rows] == _DECISIONS.index(Decision.UNKNOWN)]
        self.category[rows] = _CATEGORIES.index(category)
        self.decision[rows] = _DECISIONS.index(decision)

    def _gradients(self) -> IntArray:
        """Return what was made in backward and lives past it."""
        return np.flatnonzero(self._in(Phase.BACKWARD) & self._outlives_phase() & self._unknown())

    def _residents(self, gradients: IntArray) -> None:
        """Decide what lived before the first phase and through it, by frames and by the sizes of the gradients."""
        live, size = self._lifetimes, self._lifetimes.size_bytes
        first, stop = int(self._first[0]), int(self._stop[0])
        resident = (live.start <= first) & (live.in_use_end > stop) & (self._phase != 0)
        self._give(resident & self._is(OPTIMIZER_SETUP), Category.OPTIMIZER_STATE, Decision.STACK_RULE)
        built = resident & self._is(SETUP) & self._unknown()
        initial = np.flatnonzero(resident & live.is_initial)
        if built.any():
            # A buffer is built beside the parameters and no gradient is as large: it stays unknown.
            largest = self._largest_counts(gradients)
            rows = match_sizes(np.flatnonzero(built), size, largest, per_phase=np.zeros_like(self._phase))
            self._give(rows, Category.PARAMETER, Decision.STACK_RULE)
        elif len(gradients) or Phase.OPTIMIZER.value in self._names:
            self._initial_blocks(initial)
        else:
            for rows, category in zip(sets_of_sizes(initial, size), _ORDER, strict=False):
                self._give(rows, category, Decision.LIFETIME_RULE)
        parameters = np.flatnonzero(self.category == _CATEGORIES.index(Category.PARAMETER))
        self._give(
            match_sizes(gradients, size, count_sizes(size[parameters]), per_phase=self._phase),
            Category.GRADIENT,
            Decision.LIFETIME_RULE,
        )

    def _largest_counts(self, rows: IntArray) -> Counter[int]:
        """Return how many of these there are of each size in the phase that has most of it."""
        largest: Counter[int] = Counter()
        for phase in np.unique(self._phase[rows]).tolist():
            largest |= count_sizes(self._lifetimes.size_bytes[rows[self._phase[rows] == phase]])
        return largest

    def _initial_blocks(self, initial: IntArray) -> None:
        """Decide blocks of a history that starts late: steps replace states; what stays to the end is a parameter."""
        live = self._lifetimes
        stays = live.in_use_end[initial] >= live.num_moments
        kept, replaced = initial[stays], initial[~stays]
        counts = count_sizes(live.size_bytes[kept])
        freed_in_step = np.zeros(len(replaced), np.bool_)
        for at, name in enumerate(self._names):
            if name == Phase.OPTIMIZER.value:
                end = live.in_use_end[replaced]
                freed_in_step |= (end >= self._first[at]) & (end <= self._stop[at])
        matching = np.array([int(one) in counts for one in live.size_bytes[replaced]], np.bool_)
        self._give(replaced[freed_in_step & matching], Category.OPTIMIZER_STATE, Decision.LIFETIME_RULE)
        if (freed_in_step & matching).any():
            sizes = count_sizes(live.size_bytes[replaced[freed_in_step]])
            is_parameter = np.array([int(one) in sizes for one in live.size_bytes[kept]], np.bool_)
            self._give(kept[is_parameter], Category.PARAMETER, Decision.LIFETIME_RULE)

    def _hand_on(self, at: int) -> None:
        """Let what an optimizer step makes and keeps take over from what it frees, else be a new state."""
        live = self._lifetimes
        decision = Decision.ANNOTATION if self._annotated else Decision.STACK_RULE
        made = np.flatnonzero((self._phase == at) & self._outlives_phase() & self._unknown())
        ended = (live.in_use_end >= self._first[at]) & (live.in_use_end <= self._stop[at]) & ~self._unknown()
        lasting = [_CATEGORIES.index(one) for one in (Category.PARAMETER, Category.OPTIMIZER_STATE)]
        freed = np.flatnonzero(ended & np.isin(self.category, lasting))
        waiting: dict[int, list[int]] = defaultdict(list)
        events = [(int(live.start[row]), 0, int(row)) for row in made]
        events += [(int(live.in_use_end[row]), 1, int(row)) for row in freed]
        # In order of time: a free takes its successor from the newest block of its size.
        for _, is_free, row in sorted(events):
            same = waiting[int(live.size_bytes[row])]
            if not is_free:
                same.append(row)
            elif same:
                self._give(np.array([same.pop()]), _CATEGORIES[int(self.category[row])], decision)
        parameters = self.category == _CATEGORIES.index(Category.PARAMETER)
        sizes = count_sizes(live.size_bytes[parameters])
        fits = np.array([int(one) in sizes for one in live.size_bytes[made]], np.bool_)
        self._give(made[fits], Category.OPTIMIZER_STATE, decision)

    def _rest(self) -> None:
        """Decide what lives within a step: activations outlive forward, temporaries no phase."""
        outlives = self._outlives_phase()
        self._give(self._in(Phase.FORWARD) & outlives, Category.ACTIVATION, Decision.LIFETIME_RULE)
        self._give((self._phase >= 0) & ~outlives, Category.TEMPORARY, Decision.LIFETIME_RULE)


_ORDER = (Category.PARAMETER, Category.GRADIENT, Category.OPTIMIZER_STATE, Category.OPTIMIZER_STATE)
"""What sets of equal sizes are, in this order, where gradients too were live before the history."""


def infer(rank: RankTrace, moments: Moments, lifetimes: Lifetimes) -> Inference | None:
    """Return the inferred categories; `None` where no forward is known to tell what lives how long."""
    phases = {rank.text(int(one)) for one in np.unique(rank.table("phases")["phase"])}
    if Phase.FORWARD.value not in phases or not len(lifetimes):
        return None
    found = Inference(rank, moments, lifetimes)
    found.run()
    return found
