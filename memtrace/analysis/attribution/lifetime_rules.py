"""What allocations are for that no owner and no walk of the graph names: told from where they were born and died.

In: a recording with phases, and what owners and saved tensors decided. Out: categories, decisions and roles for more of
its allocations. Every rule is an inference and says so; what none explains stays unknown. Nothing that an owner names
is touched. The rules, by where an allocation was born:

    forward     freed in it → temporary; freed by the backward after it → activation (saved); else → activation (output)
    recompute   freed in it → temporary; freed by the backward around it → activation (recomputed)
    backward    freed in it → temporary; as large as a parameter → gradient
    optimizer   freed in it → temporary
    data        freed in it → temporary; else → input
    evaluation  freed in it → temporary; else → activation (output); made after it, each time, and kept → the same
    between     freed before the next forward → temporary; made right before it and live in it, and no set of the sizes
                of all parameters → input
    setup       live in the first forward, and no copy of a parameter → input: data, constants
    reducer     while DistributedDataParallel makes its buckets: freed then → temporary; else → communication
    collective  within a call of torch.distributed → communication
    any phase   never freed, and of the size that torch gives cuBLAS as scratch → workspace

An output that outlives the next step, too, is kept on purpose (a list of losses) if every step makes one; a single one
may be a cache or a workspace, and stays unknown.
"""

from __future__ import annotations

from collections import Counter

import numpy as np
import numpy.typing as npt

from memtrace.analysis.attribution.labels import Decided
from memtrace.analysis.attribution.parameter_sets import in_sets, parameter_sizes, repeats_much
from memtrace.analysis.attribution.place_in_loop import BETWEEN, NEVER, PHASES, Placement, build_placement
from memtrace.analysis.attribution.stack_roles import OPTIMIZER_SETUP, SETUP, roles_of, stack_roles
from memtrace.analysis.events.innermost import Spans
from memtrace.analysis.events.lifetimes import Lifetimes
from memtrace.analysis.events.moments import Moments
from memtrace.schema.names import Action, Category, Decision, Phase, Role
from memtrace.schema.workspaces import LARGE_CUBLAS_BYTES, ROCM_BLAS_BYTES, SMALL_CUBLAS_BYTES
from memtrace.store.columns import NULL, IntArray
from memtrace.store.trace import RankTrace

_BoolArray = npt.NDArray[np.bool_]

_RANDOM_STATE = "get_rng_state"
"""The function of torch that copies the state of a random generator; checkpointing keeps such copies for backward."""

_COLLECTIVES = "distributed_c10d.py"
"""The file of torch that holds all collectives."""

_LEAST_RESULTS = 3
"""Forwards of evaluation that something is kept for, and how often, to be what was computed and no batch."""

_ROUND_WORKSPACES = (LARGE_CUBLAS_BYTES, ROCM_BLAS_BYTES)
"""Scratch memory of newer devices: sizes that other things have, too."""

_REDUCER = "Reducer"
"""Class name of the scopes in which hooks saw a reducer make its buckets."""


class LifetimeRules:
    """The rules, applied in order; the first that explains an allocation decides it."""

    def __init__(self, rank: RankTrace, moments: Moments, lifetimes: Lifetimes, decided: Decided) -> None:
        """Prepare; `decided` is what will be completed."""
        self._rank, self._decided = rank, decided
        devices = rank.table("events")["device"][moments.rows[:1]]
        self._is_cpu = devices.tolist() == [rank.string_id("cpu")]
        undecided = decided.are_unknown()
        saved = decided.are_by(Decision.HOOK)
        self._rows = np.flatnonzero((undecided | saved) & ~lifetimes.is_initial)
        self._size = lifetimes.size_bytes[self._rows]
        self._stack = lifetimes.stack[self._rows]
        self._at: Placement = build_placement(rank, moments, lifetimes, self._rows)
        self._is_saved = saved[self._rows]
        self._open = undecided[self._rows]
        self._parameter_bytes, self._total_parameter_bytes = _parameter_bytes(rank)
        self._parameter_sizes = parameter_sizes(rank)

    def run(self) -> None:
        """Apply every rule."""
        at = self._at
        self._communication()
        self._inputs()
        freed_inside = (at.death_ns <= at.end_ns) & (at.death_ns != NEVER)
        # A forward that broke off freed its activations as the failure unwound it.
        freed_inside &= (at.end_ns != NEVER) | ~self._born(Phase.FORWARD) | (at.death_ns <= at.last_alloc_ns)
        self._give(freed_inside & (at.phase != BETWEEN), Category.TEMPORARY)
        self._give(self._born(Phase.FORWARD) & (at.end_ns == NEVER), Category.ACTIVATION)
        self._kept_for_backward()
        self._workspaces()
        self._outputs()
        self._gradients()

    def _born(self, *phases: Phase) -> _BoolArray:
        return np.isin(self._at.phase, [PHASES.index(phase) for phase in phases])

    def _give(
        self,
        chosen: _BoolArray,
        category: Category,
        role: Role = Role.NONE,
        decision: Decision = Decision.LIFETIME_RULE,
    ) -> None:
        """Decide the chosen allocations that nothing decided yet."""
        found = np.flatnonzero(chosen & self._open)
        self._open[found] = False
        self._decided.give(self._rows[found], category, decision, role)

    def _reopen(self, chosen: _BoolArray) -> None:
        """Forget what was decided of the chosen allocations."""
        self._open |= chosen
        self._decided.forget(self._rows[chosen])

    def _communication(self) -> None:
        """Decide what was made in scopes of a reducer, which know what it is, and inside collectives."""
        rows = _reducer_scopes(self._rank)
        if len(rows):
            scopes = self._rank.table("scopes")
            spans = Spans.build(scopes["start_ns"][rows], scopes["end_ns"][rows])
            around = spans.innermost(self._at.birth_ns)
            end = np.where(around >= 0, np.where(scopes["end_ns"] == NULL, NEVER, scopes["end_ns"])[rows[around]], 0)
            self._give((around >= 0) & (self._at.death_ns <= end), Category.TEMPORARY)
            self._give(around >= 0, Category.COMMUNICATION, decision=Decision.HOOK)
        in_collective = _have_frame(self._rank, self._stack, "file", _COLLECTIVES)
        self._give(in_collective, Category.COMMUNICATION, decision=Decision.STACK_RULE)
        # Steps without frames make the same; another thread frees it, unseen.
        stays = in_collective & (self._at.death_ns == NEVER)
        alike = np.isin(self._size, self._size[stays]) & np.isin(self._at.phase, self._at.phase[stays])
        self._give(alike & (self._stack == NULL) & (self._at.death_ns == NEVER), Category.COMMUNICATION)

    def _inputs(self) -> None:
        """Decide what was made between phases, by a data loader, or before training."""
        at = self._at
        # Before a loader is asked for the next batch, what is kept is of the step that ended: sums, metrics.
        leads_on = np.isin(at.next_phase, [PHASES.index(one) for one in (Phase.FORWARD, Phase.EVALUATION)])
        is_read = (at.death_ns > at.next_forward_ns) & (at.next_forward_ns != NEVER)
        between = (at.phase == BETWEEN) & ~at.is_setup
        drawn = between & leads_on & is_read & (at.num_steps_lived <= 2)
        drawn &= ~self._repeats_parameters(drawn)
        results = self._results(drawn)
        self._give(results, Category.ACTIVATION, Role.OUTPUT)
        drawn &= ~results
        loaded = self._born(Phase.DATA) & (at.death_ns > at.end_ns)
        early = (at.phase == BETWEEN) & at.is_setup & is_read
        resident = early & ~self._is_model_part(early)
        # What autograd saved and no forward made is no activation: labels, masks, constants; weights that none owns.
        self._reopen(self._is_saved & (drawn | loaded | early))
        self._give(drawn | loaded | resident, Category.INPUT)
        self._give(
            between & ~is_read & (at.death_ns <= at.next_forward_ns) & (at.death_ns != NEVER), Category.TEMPORARY
        )

    def _repeats_parameters(self, chosen: _BoolArray) -> _BoolArray:
        """Return which of the chosen were made together as a set of the sizes of all parameters: averages, momenta."""
        found = np.zeros(len(chosen), np.bool_)
        rows = np.flatnonzero(chosen)
        found[rows] = in_sets(self._size[rows], self._at.next_forward_ns[rows], self._parameter_sizes)
        return found

    def _results(self, drawn: _BoolArray) -> _BoolArray:
        """Return what is made between forwards of evaluation and stays for more of them, one after the other: of what
        modules returned. A batch is read by the next."""
        at = self._at
        chosen = drawn & ~self._is_saved & (at.next_phase == PHASES.index(Phase.EVALUATION))
        begins = np.append(self._reading_ns(), NEVER)
        third = np.searchsorted(begins, at.birth_ns, side="right") + _LEAST_RESULTS - 1
        rows = np.flatnonzero(chosen)
        stays = at.death_ns[rows] > begins[np.minimum(third[rows], len(begins) - 1)]
        found = np.zeros(len(chosen), np.bool_)
        if len(rows):
            kind = _codes(_codes(self._stack[rows]), _codes(self._size[rows]))
            gaps = np.unique(np.stack([kind, at.next_forward_ns[rows]]), axis=1)[0]
            is_kept = (np.bincount(gaps) >= _LEAST_RESULTS) & (np.bincount(kind, stays) > 0)
            found[rows] = is_kept[kind]
        return found

    def _reading_ns(self) -> IntArray:
        """Return when forwards begin, of training or evaluation."""
        phases, names = self._rank.table("phases"), (Phase.FORWARD.value, Phase.EVALUATION.value)
        return np.sort(phases["start_ns"][np.isin(phases["phase"], [self._rank.string_id(name) for name in names])])

    def _is_model_part(self, early: _BoolArray) -> _BoolArray:
        """Return what may be a copy of parameters (averaged or master weights), a bucket, or built by a module."""
        flat, wanted = self._total_parameter_bytes, self._parameter_sizes
        copies = np.array([flat // 2, flat, 2 * flat], np.int64)
        for width in (0.5, 1, 2):
            # Autograd saves importances of all weights, and in another type the casts that a forward makes.
            open_sizes = self._size[early & (self._open | (self._is_saved & (width == 1)))]
            of_width = Counter({int(size * width): count for size, count in wanted.items()})
            # A buffer may be as large as some weight; several copies of the weights repeat many of them.
            if repeats_much(open_sizes, of_width):
                copies = np.concatenate([copies, (self._parameter_bytes * width).astype(np.int64)])
        built = (roles_of(stack_roles(self._rank), self._stack) & (SETUP | OPTIMIZER_SETUP)) > 0
        # Buckets and shards of a distributed run are as large as any sum of parameters.
        is_distributed = (self._rank.header.get("world_size") or 1) > 1
        # Where no parameter is known, as in training by functions, the weights may be any of these.
        is_blind = not len(self._parameter_bytes) or (is_distributed and not self._knows_communication())
        return np.isin(self._size, copies) | built | is_blind

    def _knows_communication(self) -> bool:
        owners, communication = self._rank.table("owners"), self._rank.string_id(Category.COMMUNICATION.value)
        return bool(np.any(owners["category"] == communication)) or len(_reducer_scopes(self._rank)) > 0

    def _kept_for_backward(self) -> None:
        """Decide what the backward freed that follows a forward, or that is around a recomputation."""
        at = self._at
        freed_by_backward = (at.death_ns > at.backward_start_ns) & (at.death_ns <= at.backward_end_ns)
        copied = freed_by_backward & self._born(Phase.FORWARD, Phase.RECOMPUTE)
        random_state = copied & _have_frame(self._rank, self._stack, "function", _RANDOM_STATE)
        self._give(random_state, Category.AUTOGRAD_DETAIL, decision=Decision.STACK_RULE)
        # Steps without frames make copies of the same size.
        alike = copied & (self._stack == NULL) & np.isin(self._size, self._size[random_state])
        self._give(alike, Category.AUTOGRAD_DETAIL)
        broke_off = at.backward_end_ns == NEVER
        self._give(freed_by_backward & ~broke_off & self._born(Phase.FORWARD), Category.ACTIVATION, Role.SAVED)
        # What a backward computed again before it ran out of memory may be freed after it, with the exception.
        recomputed = self._born(Phase.RECOMPUTE) & (freed_by_backward | broke_off | self._sees_failure())
        self._give(recomputed, Category.ACTIVATION, Role.RECOMPUTED)
        # A backward that broke off does not tell what was kept for it from what the program kept.
        self._give(broke_off & (at.death_ns > at.backward_start_ns) & self._born(Phase.FORWARD), Category.ACTIVATION)

    def _sees_failure(self) -> _BoolArray:
        """Return which were live when memory ran out in the backward around or after their birth."""
        events, at = self._rank.table("events"), self._at
        is_failure = events["action"] == self._rank.string_id(Action.OOM.value)
        failures = np.append(np.sort(events["time_ns"][is_failure]), NEVER)
        following = failures[np.searchsorted(failures[:-1], at.birth_ns)]
        found: _BoolArray = (following != NEVER) & (following < at.death_ns) & (following <= at.backward_end_ns)
        return found

    def _workspaces(self) -> None:
        """Decide the scratch memory of cuBLAS, one a stream and thread, which no stack without C++ frames tells."""
        if self._is_cpu:
            return
        at = self._at
        stays = (at.phase != BETWEEN) & (at.death_ns == NEVER)
        alike = stays & np.isin(self._size, _ROUND_WORKSPACES)
        lasts = alike & (at.num_steps_lived > 1) & ~self._recurs(alike & self._open)
        self._give((stays & (self._size == SMALL_CUBLAS_BYTES)) | lasts, Category.WORKSPACE)
        # Of one step alone, a round size may as well be that of an output.
        self._open &= ~(alike & (at.num_steps_lived <= 1) & (at.birth_step <= 1))

    def _outputs(self) -> None:
        """Decide what the program itself kept of a forward: until the next one, or longer if every step makes one."""
        made = self._born(Phase.FORWARD, Phase.EVALUATION, Phase.OTHER) & (self._at.death_ns > self._at.end_ns)
        kept = (self._at.num_steps_lived <= 1) | self._recurs(made & self._open)
        self._give(made & kept, Category.ACTIVATION, Role.OUTPUT)

    def _recurs(self, chosen: _BoolArray) -> _BoolArray:
        """Return which of the chosen have a like, of the same stack and size, that was made in another step.

        Without stacks, as in steps that are recorded without frames, the size alone has to do.
        """
        rows = np.flatnonzero(chosen)
        found = np.zeros(len(chosen), np.bool_)
        if len(rows):
            kind = _codes(_codes(self._stack[rows]), _codes(self._size[rows]))
            step = self._at.birth_step[rows]
            first, last = np.full(len(rows), NEVER, np.int64), np.full(len(rows), -1, np.int64)
            np.minimum.at(first, kind, step)
            np.maximum.at(last, kind, step)
            found[rows] = (last > first)[kind]
        return found

    def _gradients(self) -> None:
        """Decide what a backward made that outlives it and is as large as a parameter."""
        at = self._at
        outlives = self._born(Phase.BACKWARD) & (at.end_ns != NEVER) & (at.death_ns > at.end_ns)
        self._give(outlives & np.isin(self._size, self._parameter_bytes), Category.GRADIENT)


def _codes(values: IntArray, more: IntArray | None = None) -> IntArray:
    """Return a number for each distinct value, or pair of values."""
    joint = values if more is None else values * (int(more.max()) + 1) + more
    codes: IntArray = np.unique(joint, return_inverse=True)[1].reshape(-1)
    return codes


def _parameter_bytes(rank: RankTrace) -> tuple[IntArray, int]:
    """Return the distinct sizes of parameters, and how much those seen last are together."""
    owners = rank.table("owners")
    rows = np.flatnonzero(owners["category"] == rank.string_id(Category.PARAMETER.value))
    if not len(rows):
        return np.zeros(0, np.int64), 0
    sizes, times = owners["size_bytes"][rows], owners["time_ns"][rows]
    return np.unique(sizes), int(sizes[times == times.max()].sum())


def _reducer_scopes(rank: RankTrace) -> IntArray:
    """Return the rows of scopes in which a reducer made its buckets."""
    return np.flatnonzero(rank.table("scopes")["class_name"] == rank.string_id(_REDUCER))


def _have_frame(rank: RankTrace, stack: IntArray, column: str, name: str) -> _BoolArray:
    """Return which of some stacks hold a frame whose file or function has this name."""
    frames, stacks = rank.table("frames"), rank.table("stacks")
    named = [one for one in np.unique(frames[column]).tolist() if _last_part(rank.text(one) or "") == name]
    is_frame = np.isin(frames[column], named)
    if not is_frame.any():
        return np.zeros(len(stack), np.bool_)
    holds: list[bool] = []
    # A calling stack is an earlier row, so it is known already.
    for own, parent in zip(is_frame[stacks["frame"]].tolist(), stacks["parent"].tolist(), strict=True):
        holds.append(own or (parent != NULL and holds[parent]))
    return np.append(holds, False)[np.where(stack == NULL, len(holds), stack)]


def _last_part(path: str) -> str:
    return path.replace("\\", "/").rpartition("/")[2]
