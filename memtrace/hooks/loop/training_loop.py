"""The training loop as the hooks see it: what each callback of torch means for phases, steps, owners and scopes."""

from __future__ import annotations

import sys
import weakref
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from time import time_ns
from typing import Any

from memtrace.hooks.failure.meant_for_program import pass_on
from memtrace.hooks.keepers.budget import Budget
from memtrace.hooks.keepers.other_threads import busy_threads
from memtrace.hooks.keepers.program_frames import calling_line
from memtrace.hooks.keepers.search import KeeperSearch
from memtrace.hooks.loop.accumulation import Accumulation
from memtrace.hooks.loop.by_hand import ByHand
from memtrace.hooks.loop.compiled_steps import CompiledSteps
from memtrace.hooks.loop.evaluation import Call, Evaluation
from memtrace.hooks.loop.followed_thread import FollowedThread
from memtrace.hooks.loop.keyword_arguments import keyword_arguments
from memtrace.hooks.loop.main_part import Writer
from memtrace.hooks.loop.module_scopes import ModuleScopes
from memtrace.hooks.loop.named_ranges import Annotations
from memtrace.hooks.loop.phases import PhaseClock
from memtrace.hooks.loop.step_calls import StepCalls
from memtrace.hooks.loop.steps import StepEnd, StepTracker
from memtrace.hooks.loop.window import Window
from memtrace.hooks.ownership.communication_buffers import Communication
from memtrace.hooks.ownership.ddp_buckets import Replicas
from memtrace.hooks.ownership.inputs import Inputs
from memtrace.hooks.ownership.owners import Owned, OwnerRows, tensors_in
from memtrace.hooks.ownership.saved import SavedWalk
from memtrace.hooks.ownership.sweep import OwnerSweep
from memtrace.hooks.ownership.users import Users
from memtrace.hooks.parts.chunk import Row
from memtrace.hooks.parts.owner_rows import Sweep
from memtrace.hooks.parts.status import Status
from memtrace.hooks.sources.choose import Sources
from memtrace.hooks.sources.high_water import NO_MARK
from memtrace.paused_gc import paused_gc
from memtrace.schema.names import Phase

_FORWARDS_IN_A_ROW = frozenset(3 << at for at in range(20))
"""After so many forwards of one module without a backward what they left behind is looked at, ever more rarely."""

_BY_HAND_NS = 10**9
_SHARE_BY_HAND = 0.05
"""Of passes that end no step, so much of the time may go into looking whether they do."""

_STEPS = frozenset({"step", "_init_group"})
"""Methods of an optimizer that the compiler reads where it compiles a step of it."""


class TrainingLoop:
    """Follows the loop of one thread: the one that the recording began on, or that trains while this one does not."""

    def __init__(
        self, torch: Any, window: Window, sources: Sources, writer: Writer, status: Status, start_ns: int
    ) -> None:
        self._torch = torch
        self._window = window
        self._sources = sources
        self._writer = writer
        self._status = status
        self._thread = FollowedThread()
        self._trains = False
        self._step = 0
        self._step_start_ns = start_ns
        self._ended_unfinished = False
        self.steps = StepTracker(
            self._step_ended, on_possible_end=self._step_may_have_ended, on_going_on=self._step_goes_on
        )
        self._seen_at_end: _SeenAtEnd | None = None
        self._phases = PhaseClock(lambda row: self._window.chunk.phases.append(row), status.phase)
        self.replicas = Replicas(
            write=writer.bucket,
            on_forward=lambda row: self._window.chunk.replica_forwards.append(row),
            on_timing=lambda row: self._window.chunk.reducer_timings.append(row),
        )
        self.modules = ModuleScopes(
            torch,
            emit=lambda row: self._window.chunk.scopes.append(row),
            on_root=self._root_began,
            after_root=self._root_ended,
            on_recompute=self._recomputed,
            step=lambda: self._step,
            watched=self.replicas.watched,
            on_watched=self._replica_began,
        )
        self._step_calls = StepCalls()
        self._compiled_steps = CompiledSteps()
        self._annotations = Annotations(lambda row: self._window.chunk.annotations.append(row))
        self._owners = OwnerRows(torch)
        self._inputs = Inputs(torch)
        self._accumulation = Accumulation()
        self._evaluation = Evaluation(self._live_optimizers)
        self._sweep = OwnerSweep(torch, self._owners)
        self.communication = Communication(
            torch,
            emit=self._own,
            emit_scope=lambda row: self._window.chunk.scopes.append((*row, self._step, False)),
            replicas=self.replicas,
            step=lambda: self._step,
        )
        self._averages: weakref.WeakSet[Any] = weakref.WeakSet()
        self._saved = self._make_saved_walk()
        self._by_hand = ByHand(torch)
        self._by_hand_budget = Budget(at_once_ns=_BY_HAND_NS, share=_SHARE_BY_HAND, now_ns=time_ns())
        self._follows_by_hand = self._is_of_modules = False
        self._may_have_ended_ns: int | None = None
        """When the last backward ended, and with it perhaps a step by hand: the next one tells."""
        self._keepers: KeeperSearch | None = KeeperSearch(torch, self._saved)
        self._mark = NO_MARK
        self._kept: list[Row] = []
        self._num_forwards: Counter[int] = Counter()
        self._optimizers: dict[int, weakref.ref[Any]] = {}
        self._users = Users(busy_threads)
        self._scaler_saw: tuple[int, bool] | None = None
        self.on_window: Callable[[], None] = lambda: None
        """Called when the window may have opened or closed, to add or remove the hooks that cost time."""
        self.on_span_end: Callable[[], None] = lambda: None
        """Called when a backward pass has ended, or the wait for a batch."""
        self.on_root: Callable[[], None] = lambda: None
        """Called when a forward begins, to hook into what the program may have loaded by then."""

    @property
    def step(self) -> int:
        """Number of the step that runs; 0 before training."""
        return self._step

    @property
    def finds_saved_tensors(self) -> bool:
        """Whether this torch lets saved tensors be found without side effects."""
        return self._saved is not None

    def _make_saved_walk(self) -> SavedWalk | None:
        try:
            return SavedWalk(self._torch)
        except AttributeError:
            self._writer.note(
                "saved-missing",
                "This torch does not show what autograd keeps without unpacking it, so the graph was not walked: "
                "which activations are kept for backward is inferred.",
            )
            return None

    @property
    def is_current_thread(self) -> bool:
        """Whether the calling thread is the one whose loop is followed."""
        return self._thread.is_current

    @property
    def may_be_ended(self) -> bool:
        """Whether the calling thread may end what is followed: it is its own, or nobody's any more."""
        return self._thread.is_current or self._thread.has_ended

    def _follows(self) -> bool:
        """Return whether the calling thread, which seems to train, is followed; from now on, where none trains so far.

        Ray and web servers train on a thread of their own, while the one that imported torch waits. Threads of one
        forward, as `DataParallel` has them, begin within that of the followed thread.
        """
        if self._thread.is_current:
            return True
        is_free = not self._trains or self._thread.has_ended
        if not is_free or self._phases.current is not Phase.OTHER or not self._sources.sees_all_threads:
            return False
        self._thread = FollowedThread()
        return True

    # Modules

    def _root_began(self, module: Any, args: tuple[Any, ...]) -> None:
        self._users.used(module)
        with_gradients = self._torch.is_grad_enabled()
        if not (self._follows() if with_gradients else self.is_current_thread):
            return
        self._between_steps()
        self.on_root()
        self._num_forwards[id(module)] += 1
        if self._num_forwards[id(module)] in _FORWARDS_IN_A_ROW:
            self._look_between_forwards()
        call = self._evaluation.call(
            module,
            with_gradients=with_gradients,
            runs=self._phases.runs,
            may_be_forward=self._phases.may_be_forward,
            step=self._step,
        )
        if call is Call.TRAINING:
            self._is_of_modules = True
            self._training_runs()
            self._accumulation.forward(module)
            self.communication.root_runs(module)
            if self.communication.misses_groups(module):
                self._writer.note(
                    "fsdp-missing", "this torch keeps the groups of FSDP2 in an unknown place: not followed"
                )
            self._sources.choose(module)
        elif call is Call.PERHAPS_EVALUATION:
            self._accumulation.forward(module)
            if self._step == 0:
                self._training_may_begin()
        now = time_ns()
        if call in (Call.TRAINING, Call.PART):
            self._phases.forward(now)
        elif call is not Call.WITHIN:
            self._phases.evaluate(now, may_be_forward=call is Call.PERHAPS_EVALUATION)
        if self._window.is_open:
            self._window.wants_frames(True)
            given = self._inputs.given(module, (args, keyword_arguments(module)))
            self._window.chunk.owners += self._owners.rows_of(given, now_ns=time_ns(), step=self._step)
            if with_gradients:
                self._writer.note_autocast(self._torch)

    def _replica_began(self, model: Any) -> None:
        if self.is_current_thread and self._window.is_open and self._torch.is_grad_enabled():
            self.replicas.forward(model, step=self._step, microbatch=self._phases.microbatch)

    def _root_ended(self, output: Any) -> None:
        if self.is_current_thread:
            self._phases.module_ended(time_ns())
            if self._window.is_open:
                self._inputs.computed(output)
                self._walk_evaluation(output)
        self._window.bound_chunk()

    def _walk_evaluation(self, output: Any) -> None:
        """Note what a graph keeps that perhaps no backward will ever run through."""
        if self._phases.may_be_forward and self._saved is not None and self._torch.is_grad_enabled():
            found = [tensor for _, tensor in tensors_in(output, "", self._torch.Tensor)]
            self._walk(found)

    def _walk(self, roots: Sequence[Any]) -> None:
        assert self._saved is not None
        # Without the collector: each node that is looked at is an object, and ten thousand of them call it.
        with self._window.without_frames(), paused_gc():
            began_ns = time_ns()
            found = self._saved.rows(roots, now_ns=began_ns, step=self._step, microbatch=self._phases.microbatch)
            self._window.chunk.saved.append(found)
            self._window.worked(began_ns)

    def _recomputed(self, start_ns: int, end_ns: int) -> None:
        row: Row = (str(Phase.RECOMPUTE), self._step, self._phases.microbatch, start_ns, end_ns, None)
        self._window.chunk.phases.append(row)

    def _training_runs(self) -> None:
        """End step 0, everything before training; without any optimizer, end a step at the forward after a backward."""
        if self._phases.inside:
            return
        if self._step == 0:
            self._end_step(StepEnd(time_ns(), skipped=False))
        elif self._phases.has_backward and not self._live_optimizers():
            self.steps.mark(time_ns())

    def _training_may_begin(self) -> None:
        """Look, once, at the end of step 0: a backward may follow."""
        if self._seen_at_end is None:
            self._step_may_have_ended()

    def tell_of_many_events(self, function: Callable[[], None] | None) -> None:
        """Have a function called where very many events wait, as far as that is noticed; `None`: no more."""
        self._window.tell_of_many_events(function)

    def many_objects(self) -> None:
        """Very many objects were made since this was last called, tensors perhaps, or very many events were noted."""
        if self.is_current_thread:
            self._window.bound_events()

    # Named ranges

    def range_began(self, named_range: Any, *_args: Any) -> None:
        """The program enters a `record_function`."""
        if self.is_current_thread:
            self._step_calls.enter(str(named_range.name))
            if self._window.is_open:
                self._annotations.enter(named_range)

    def range_ended(self, named_range: Any, *_args: Any) -> None:
        """It leaves one."""
        if self.is_current_thread:
            if self._step_calls.leave(str(named_range.name)):
                self._phases.abandon(Phase.OPTIMIZER, time_ns())
            self._annotations.leave(named_range)

    # Backward and data

    def before_backward(self, *args: Any, **kwargs: Any) -> None:
        """A call of `backward(tensors, grad_tensors, retain_graph, create_graph)` begins."""
        if self._keepers is not None and self.is_current_thread and (kwargs.get("create_graph") or any(args[3:4])):
            self._keepers.graph_of_gradients = calling_line(sys._getframe())
        self.before_grad(*args, **kwargs)

    def before_grad(self, tensors: Any = (), *_args: Any, outputs: Any = (), **_kwargs: Any) -> None:
        """A call of `backward(tensors)` or `grad(outputs)` begins."""
        if not self._follows():
            return
        self._trains = True
        self._num_forwards.clear()
        self._between_steps()
        self._settle_by_hand()
        if self._step == 0 and self._seen_at_end is not None and self._phases.may_be_forward:
            # What might have been evaluation was the first forward of training.
            self._end_step(StepEnd(self._seen_at_end.next_from_ns, skipped=False, is_late=True))
        elif self._step == 0:
            self._training_runs()
        nested = self._phases.current is Phase.BACKWARD
        self._phases.begin(Phase.BACKWARD, time_ns())
        if self._saved is not None and not nested:
            given = (outputs,) if isinstance(outputs, self._torch.Tensor) else outputs
            roots = (tensors,) if isinstance(tensors, self._torch.Tensor) else (*(tensors or ()), *(given or ()))
            if self._window.is_open:
                self._walk(roots)
            self._pass_begins_by_hand(self._saved, roots)

    def before_data(self, *_args: Any) -> None:
        """A data loader is asked for the next batch."""
        if self.is_current_thread:
            if not self._phases.inside:
                self._take_compiled_steps()
                self.steps.draws_batch()
            self._window.wants_frames(False)
            self._phases.begin(Phase.DATA, time_ns())

    def after_span(self, *_args: Any, **_kwargs: Any) -> None:
        """What `before_backward` or `before_data` began has ended."""
        if self.is_current_thread:
            was_backward = self._phases.current is Phase.BACKWARD
            self._phases.end(time_ns())
            if was_backward and self._phases.current is not Phase.BACKWARD:
                self._accumulation.backward()
                self._compiled_steps.backward_ended(
                    self._live_optimizers() if self._compiled_steps.are_possible else ()
                )
                self.steps.backward_ended(time_ns())
                self._pass_ended_by_hand()
            self.on_span_end()

    # Training by hand

    def _pass_begins_by_hand(self, walk: SavedWalk, roots: Sequence[Any]) -> None:
        began_ns = time_ns()
        # Much is measured by passes that end no step: looking at their tensors costs no more than it may.
        self._follows_by_hand = not self._live_optimizers() and self._by_hand_budget.allows(began_ns)
        if self._follows_by_hand:
            rows = self._by_hand.pass_begins(walk.leaves(roots), self._owners.names, self._names_of)
            self._window.chunk.owners += rows if self._window.is_open else []
            self._window.worked(began_ns)
            self._by_hand_budget.spend(time_ns() - began_ns)

    def _names_of(self, tensors: list[Any]) -> dict[int, str]:
        try:
            return {} if self._keepers is None else self._keepers.names_of(tensors, innermost=sys._getframe())
        except Exception as error:
            pass_on(error)
            return {}

    def _pass_ended_by_hand(self) -> None:
        """Look at the tensors of the program's own. Where no module tells of the next step, it may begin here."""
        is_of_modules, self._is_of_modules = self._is_of_modules, False
        if not self._follows_by_hand or self._phases.inside:
            return
        ended_ns = time_ns()
        self._by_hand.pass_ended()
        may_end_step = self._by_hand.is_possible and self._step > 0 and not (is_of_modules or self.steps.explicit)
        if may_end_step:
            self._step_may_have_ended()
            self._may_have_ended_ns = ended_ns
        if self._window.is_open:
            # What may be the first to be recorded begins here.
            now_ns = time_ns()
            self._by_hand.note_rows(lambda found: self._owners.rows_of(found, now_ns=now_ns, step=self._step))
        self._by_hand_budget.spend(time_ns() - ended_ns)

    def _settle_by_hand(self) -> None:
        """Tell whether the step ended with the last backward: the program has written to what it trains since."""
        ended_ns, self._may_have_ended_ns = self._may_have_ended_ns, None
        if ended_ns is None:
            return
        if not self.steps.explicit and self._by_hand.has_stepped():
            # Steps are what this is for: of loops that have them it may cost what it costs.
            self._by_hand_budget.refill()
            self._end_step(StepEnd(ended_ns, skipped=False, is_late=True))
        else:
            self._step_goes_on()

    # Optimizers

    def optimizer_created(self, optimizer: Any, *_args: Any, **_kwargs: Any) -> None:
        """An optimizer was constructed, or is seen for the first time."""
        self._users.used(optimizer)
        key = id(optimizer)
        if key not in self._optimizers:
            # The callback matters: a new optimizer at the same address must not count as the old one.
            self._optimizers[key] = weakref.ref(optimizer, lambda _reference: self._optimizer_gone(key))
            self.steps.created(key)

    def _optimizer_gone(self, key: int) -> None:
        self._optimizers.pop(key, None)
        self._compiled_steps.gone(key)
        self.steps.gone(key)

    def _live_optimizers(self) -> list[Any]:
        return [found for reference in list(self._optimizers.values()) if (found := reference()) is not None]

    def before_optimizer(self, optimizer: Any, _args: Any, _kwargs: Any) -> None:
        """An optimizer step begins."""
        self.optimizer_created(optimizer)
        if not (self._in_backward() or self._follows()):
            self._writer.note(
                "steps-on-other-thread",
                "the program trains on another thread than the one that is followed, too"
                if self._sources.sees_all_threads or self._trains
                else "the program trains on another thread than the one whose events torch's profiler records",
            )
            return
        self._trains = True
        self._compiled_steps.seen(id(optimizer))
        if self._step == 0:
            # Training begins here at the latest: the forward may run inside, in a closure.
            self._end_step(StepEnd(time_ns(), skipped=False))
        self.steps.before(id(optimizer))
        if _is_cold(optimizer):
            self._window.wants_frames(False)
        self._phases.begin(Phase.OPTIMIZER, time_ns(), type(optimizer).__name__)
        if self.is_current_thread:
            self._step_calls.begin()

    def after_optimizer(self, optimizer: Any, _args: Any, _kwargs: Any) -> None:
        """An optimizer step has ended."""
        if not self._is_followed():
            return
        now = time_ns()
        self._phases.end(now)
        # A closure runs backward in it.
        self._compiled_steps.seen(id(optimizer))
        if self.is_current_thread:
            self._step_calls.end()
            self._accumulation.cut()
        self._writer.describe_optimizer(optimizer)
        if self._window.is_open and self._in_backward():
            # An optimizer in backward frees its gradient right after: this is the last moment to see it.
            self._window.chunk.owners += self._owners.of_optimizer(optimizer, now_ns=now, step=self._step)
        self.steps.after(id(optimizer), now, in_backward=self._phases.current is Phase.BACKWARD)

    def program_compiles(self) -> None:
        """The program compiles functions from now on; an optimizer may step in one."""
        self._compiled_steps.are_possible = True

    def optimizer_is_compiled(self, variable: Any, *args: Any, **kwargs: Any) -> None:
        """The compiler reads an attribute of an optimizer, which `variable` stands for. Unguarded: it cannot fail."""
        if any(type(one) is str and one in _STEPS for one in (*args, *kwargs.values())):
            self._compiled_steps.compiled(id(getattr(variable, "value", None)))

    def compiled_call_begins(self, *_args: Any) -> None:
        """The program calls a function that torch compiles: an optimizer step of the call before has ended."""
        if self.is_current_thread and not self._phases.inside:
            self._take_compiled_steps()

    def _take_compiled_steps(self) -> None:
        """Note the optimizer steps that compiled code has taken since the last backward."""
        for optimizer in self._compiled_steps.take(self._live_optimizers()):
            self._writer.note(
                "steps-compiled",
                "optimizer steps are compiled: each is told by what it wrote, and ends where the program goes on",
            )
            self._accumulation.cut()
            self._writer.describe_optimizer(optimizer)
            self.steps.before(id(optimizer))
            self.steps.after(id(optimizer), time_ns())

    def _in_backward(self) -> bool:
        return bool(self._torch._C._current_graph_task_id() != -1)

    def _is_followed(self) -> bool:
        """Whether an optimizer step belongs to the loop: one in backward does, on whichever thread autograd runs it."""
        return self.is_current_thread or self._in_backward()

    def before_zero_grad(self, _owner: Any, set_to_none: bool = True) -> None:
        """Gradients are about to be dropped, or set to zero and kept."""
        if self.is_current_thread:
            self._accumulation.cut()
            self._between_steps()
        if not set_to_none:
            self._writer.note_kept_gradients()

    def before_scaler(self, scaler: Any, optimizer: Any, *_args: Any, **_kwargs: Any) -> None:
        """A gradient scaler is about to step an optimizer, or to skip it."""
        if scaler.is_enabled():
            self._writer.note_scaler()
        self._scaler_saw = self._step, self.steps.has_stepped(id(optimizer))

    def after_scaler(self, _scaler: Any, optimizer: Any, *_args: Any, **_kwargs: Any) -> None:
        """A gradient scaler returned. If the optimizer's own hooks did not fire meanwhile, it skipped the step."""
        if self.is_current_thread and self._scaler_saw == (self._step, self.steps.has_stepped(id(optimizer))):
            self.optimizer_created(optimizer)
            self.steps.after(id(optimizer), time_ns(), skipped=True)

    # Steps

    def _between_steps(self) -> None:
        """The program goes on, perhaps with the next step."""
        if not self._phases.inside:
            self._take_compiled_steps()
            self.steps.goes_on()

    def _step_may_have_ended(self) -> None:
        """Look at the end of a step that may turn out to be none: whose end it was is known when it is long past."""
        self._settle_by_hand()
        began_ns, spent_ns = time_ns(), self._window.spent_ns
        owned = self._look_at_owners()
        state, num_microbatches = self._writer.state(), self._accumulation.num_microbatches
        was_open = self._window.is_open
        self._phases.may_end_step()
        self._accumulation.may_end_step()
        self._seen_at_end = _SeenAtEnd(
            next_from_ns=self._window.may_end_step(self._step),
            is_recorded=was_open and self._sources.recording,
            next_microbatch=self._phases.microbatch,
            num_microbatches=num_microbatches,
            recording_ns=spent_ns,
            state=state,
            owned=owned,
        )
        if self._window.is_open != was_open:
            self.on_window()
        # Drains count themselves.
        self._window.spent_ns = spent_ns
        self._window.worked(began_ns)

    def _step_goes_on(self) -> None:
        was_open = self._window.is_open
        self._seen_at_end = None
        self._phases.goes_on()
        self._accumulation.goes_on()
        self._window.goes_on(self._step)
        if self._window.is_open != was_open:
            self.on_window()

    def _step_ended(self, end: StepEnd) -> None:
        self._settle_by_hand()
        if self._step == 0:
            # A scaler skipped a step before any forward that we saw.
            self._end_step(StepEnd(self._step_start_ns, skipped=False))
        self._end_step(end)

    def _end_step(self, end: StepEnd) -> None:
        began_ns = time_ns()
        seen, self._seen_at_end = self._seen_at_end if end.is_late else None, None
        self._write_step(end, seen)
        if self._step == 0:
            # Now, not after the first step, which may fail: what will be resident by then depends on them.
            for optimizer in self._live_optimizers():
                self._writer.describe_optimizer(optimizer)
        owned = self._look_at_owners() if seen is None else seen.owned
        self._status.step_ended(self._step, owned, time_ns())
        self._writer.mark(self._step, self._mark)
        self._mark = NO_MARK
        self._window.end_step(self._step)
        if self._window.is_open:
            # As what the next step begins with: the chunk of this one may leave the rolling window before its own.
            self._window.chunk.keepers += [(time_ns(), *row[1:]) for row in self._kept]
        self._step += 1
        self._step_start_ns = end.end_ns or time_ns()
        if seen is None:
            self._phases.start_step(self._step)
            self._accumulation.start_step()
        else:
            self._phases.start_step_late(self._step)
        self.on_window()
        self._writer.flush()
        self._window.spent_ns -= self._window.spent_ns if seen is None else seen.recording_ns
        # The next step began when this one ended.
        self._window.worked(began_ns)

    def _look_at_owners(self) -> Sweep | None:
        """Note who owns what at the end of a step, and what is kept that nobody owns."""
        self._kept = []
        if self._sources.counts_marks:
            self._take_mark()
        if not self._window.is_open:
            return None
        # First the events: the CPU source would record every Python call of the sweep.
        self._window.take_events()
        if not self._sources.counts_marks:
            self._take_mark()
        owned = self._sweep_owners(ends_step=self._step > 0)
        self._kept = self._find_keepers(owned, self._sources.levels())
        if self._step > 0:
            self._writer.note_unstepped(self._sweep.unstepped.names)
            self._writer.note_followers(self._sweep.unstepped.written)
        self.replicas.step_ended(self._step)
        return owned

    def _take_mark(self) -> None:
        """Note how high memory was in the step, before its events are written or dropped."""
        self._mark = self._mark.joined(self._sources.take_mark())
        self._window.note_mark(self._step, self._mark.num_bytes)

    def _write_step(self, end: StepEnd, seen: _SeenAtEnd | None = None) -> None:
        self._writer.step(
            step=self._step,
            start_ns=self._step_start_ns,
            end=end,
            recorded=self._window.is_open and self._sources.recording if seen is None else seen.is_recorded,
            num_microbatches=self._accumulation.num_microbatches if seen is None else seen.num_microbatches,
            recording_ns=self._window.spent_ns if seen is None else seen.recording_ns,
            state=None if seen is None else seen.state,
            next_from=None if seen is None else (seen.next_from_ns, seen.next_microbatch),
        )

    def _sweep_owners(self, *, ends_step: bool = False) -> Sweep:
        sweep = self._owners_now(ends_step=ends_step)
        self._window.chunk.sweeps.append(sweep)
        return sweep

    def _owners_now(self, *, ends_step: bool = False) -> Sweep:
        roots, optimizers = self._users.look([*self.modules.roots(), *self._averages], self._live_optimizers())
        with paused_gc():
            return self._sweep.sweep(
                roots,
                optimizers,
                held=[*self.communication.held(), *self._by_hand.owned()],
                names=self.communication.names(),
                now_ns=time_ns(),
                step=self._step,
                ends_step=ends_step,
            )

    def _look_between_forwards(self) -> None:
        """Note what keeps the results of forwards that no backward followed: an evaluation, or many micro-batches."""
        if self._window.is_open and self._step > 0:
            with self._window.without_frames():
                began_ns = time_ns()
                self._find_keepers(self._owners_now(), {})
                self._window.worked(began_ns)

    def _find_keepers(self, owned: Sweep, level: Mapping[str, Any]) -> list[Row]:
        """Note what keeps tensors that nobody owns. Before training began, nothing has outlived a step."""
        if self._step == 0 or self._keepers is None:
            return []
        try:
            rows = self._search_keepers(self._keepers, owned, level)
        except Exception as error:
            pass_on(error)
            # A step must end whatever the objects of a program are like.
            self._keepers = None
            self._writer.note("hook-failed", f"the search for keepers failed and is off: {type(error).__name__}")
            return []
        self._window.chunk.keepers += rows
        return rows

    def _search_keepers(self, search: KeeperSearch, owned: Sweep, level: Mapping[str, Any]) -> list[Row]:
        with paused_gc():
            return search.rows(
                owned.storages,
                level,
                innermost=sys._getframe(),
                now_ns=time_ns(),
                step=self._step,
            )

    def _own(self, found: list[Owned]) -> None:
        if self._window.is_open:
            self._window.chunk.owners += self._owners.rows_of(found, now_ns=time_ns(), step=self._step)

    def average_created(self, average: Any, *_args: Any, **_kwargs: Any) -> None:
        """A model that averages another was made: its parameters are owned although it may never be called."""
        self._averages.add(average)

    # The end

    def break_off(self) -> None:
        """Write everything that is open: the program fails or ends here. Safe to call twice."""
        if self._ended_unfinished:
            return
        self._ended_unfinished = True
        # The window may close or open, and nothing that comes of it matters any more.
        self.on_window = lambda: None
        self._take_compiled_steps()
        self._settle_by_hand()
        self.steps.close(has_begun=self._phases.has_begun)
        if self._window.is_open:
            self._sweep_owners()
        self._phases.flush()
        self.modules.flush()
        # After the last step of an orderly run comes no further step.
        if self._step > 0 and self._phases.has_begun:
            self._write_step(StepEnd(None, skipped=False))

    def before_oom_dump(self) -> None:
        """Note who owns what at the moment of an out-of-memory."""
        if self._window.is_open and self.is_current_thread:
            self._sweep_owners()


@dataclass(slots=True)
class _SeenAtEnd:
    """What was seen of a step when it may have ended."""

    next_from_ns: int
    """From when on all that is noted is of the next step, if this one has ended."""
    next_microbatch: int
    """Number in this step of what is then the first micro-batch of the next."""
    is_recorded: bool
    num_microbatches: int
    recording_ns: int
    state: dict[str, int | None]
    owned: Sweep | None


def _is_cold(optimizer: Any) -> bool:
    """Return whether torch will first work out, in a great deal of Python, how to run this on sharded parameters."""
    group = next(iter(optimizer.param_groups), {"params": ()})
    return not optimizer.state and hasattr(next(iter(group["params"]), None), "_local_tensor")
