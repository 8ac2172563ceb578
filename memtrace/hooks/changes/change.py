"""Puts the changes in place that `memtrace fix` asks for, and the survey of what runs; takes them off again."""

from __future__ import annotations

import atexit
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

from memtrace.hooks.changes.chunked_loss import chunk_losses
from memtrace.hooks.changes.habits import Habits
from memtrace.hooks.changes.kept_results import has_policies
from memtrace.hooks.changes.names import ModuleNames
from memtrace.hooks.changes.offload import Offload
from memtrace.hooks.changes.random_state import start_alike
from memtrace.hooks.changes.recompute import Recompute
from memtrace.hooks.changes.regions import Regions
from memtrace.hooks.changes.safety import reason_against
from memtrace.hooks.changes.settings import (
    NoCache,
    change_optimizer,
    configs_of,
    free_gradients,
    optimizer_kernels,
    uses_cache,
)
from memtrace.hooks.changes.stepping.sharded_states import shard_states
from memtrace.hooks.changes.stepping.small_states import reason_against_small_states, shrink_states
from memtrace.hooks.changes.stepping.step_in_backward import StepInBackward
from memtrace.hooks.changes.survey import Survey
from memtrace.hooks.ownership.module_tree import parameters_in
from memtrace.hooks.parts.who_am_i import rank_facts
from memtrace.hooks.torch_side.guard import Guard
from memtrace.hooks.torch_side.patches import Patches, hide_from_warnings
from memtrace.schema.changes import STATES, STEP, Changes
from memtrace.schema.options import RecordOptions

_changed: Changed | None = None


def install_alone(options: RecordOptions) -> None:
    """Change this process and record nothing. Called once, right after the program's import of torch has finished."""
    global _changed
    if _changed is None:
        torch = sys.modules["torch"]

        def warn(_slug: str, message: str) -> None:
            sys.stderr.write(f"memtrace: {message}\n")

        guard = Guard(warn, torch.compiler.is_compiling)
        _changed = Changed(torch, options.changes, None, guard, warn)
        _changed.install()
        atexit.register(_changed.tell_missing)


class Changed:
    """The program as it is changed, and what is written down of it."""

    def __init__(
        self,
        torch: Any,
        changes: Changes | None,
        survey: Survey | None,
        guard: Guard,
        warn: Callable[[str, str], None],
    ) -> None:
        """`warn` is told, by slug and sentence, of modules that cannot be changed."""
        self._torch = torch
        self._changes = changes or Changes()
        self._survey = survey
        self._guard = guard
        self._warn = warn
        self._patches = Patches()
        self._regions = Regions(torch)
        self._waiting = {*self._changes.recompute, *self._changes.offload}
        self._parameters: set[int] = set()
        self._no_cache = NoCache(torch)
        self._handles: list[Any] = []
        self._in_backward: StepInBackward | None = None
        self._habits: Habits | None = None
        self._names = ModuleNames(lambda: bool(torch._C._current_graph_task_id() != -1), self._root_found)

    def install(self) -> None:
        """Put everything in place."""
        torch = self._torch
        self._wrap_calls()
        if self._changes.set_to_none:
            free_gradients(torch, self._patches)
        if self._changes.chunk_loss:
            chunk_losses(torch, self._patches)
        if self._changes.small_states:
            shrink_states(torch, self._patches, lambda why: self._refuse(STATES, why))
        if self._changes.sharded_states:
            shard_states(torch, self._patches, lambda why: self._refuse(STATES, why))
        if self._changes.step_in_backward:
            self._in_backward = StepInBackward(torch, self._refuse_step)
            self._in_backward.install(self._patches)
        wrap = self._guard.wrap
        self._patches.around(
            torch.optim.Optimizer, "__init__", after=wrap(self._optimizer_created, name="a changed optimizer")
        )
        if self._survey is not None:
            if self._survey.is_real:
                start_alike(torch, rank_facts()["rank"] or 0)
            self._habits = Habits(
                torch, self._survey, self._guard, watches_gradients=not self._changes.step_in_backward
            )
            self._habits.install(self._patches)

    def tell_missing(self) -> None:
        """Warn of modules that a plan names and the program never ran: it is then another program than was searched."""
        if self._waiting and self._names.num_roots:
            missing = sorted(self._waiting)
            self._warn("fix-missing", f"modules of the plan that were never run: {len(missing)}, {missing[0]} first")

    def finish(self) -> None:
        """Write the survey and take everything off."""
        if self._survey is not None:
            self._survey.facts["missing"] = sorted(self._waiting)
            self._survey.facts["rank"] = rank_facts()["rank"]
            if self._habits is not None:
                self._habits.finish()
            self._survey.write()
        self._patches.undo()
        self._regions.remove()
        if self._in_backward is not None:
            self._in_backward.remove()
        while self._handles:
            self._handles.pop().remove()

    def _wrap_calls(self) -> None:
        """See each call of a module from outside its hooks: by then `forward` has not been looked up yet."""
        torch = self._torch
        original = torch.nn.Module.__call__
        enter, leave, is_compiling = self._enter, self._leave, torch.compiler.is_compiling
        names, guard, precision = self._names, self._guard, self._precision

        # Named as in torch: its profiler, where it traces frames, reads `self` of this one.
        def call(self: Any, *args: Any, **kwargs: Any) -> Any:
            if is_compiling() or guard.active:
                return original(self, *args, **kwargs)
            opened = enter(self, args, kwargs)
            out = None
            has_failed = True
            try:
                with precision(names.is_outermost):
                    out = original(self, *args, **kwargs)
                has_failed = False
                return out
            finally:
                leave(self, opened, out, has_failed)

        hide_from_warnings(call)
        self._patches.replace(torch.nn.Module, "__call__", call)

    def _precision(self, is_root: bool) -> AbstractContextManager[Any]:
        torch = self._torch
        wanted = self._changes.autocast
        kind = "cuda" if torch.cuda.is_available() else "cpu"
        if wanted is None or not is_root or torch.is_autocast_enabled(kind):
            return _As()
        found: AbstractContextManager[Any] = torch.autocast(kind, dtype=getattr(torch, wanted))
        return found

    def _enter(self, module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, list[Any]]:
        opened, switched = None, []
        with self._guard.quiet():
            try:
                self._names.before(module)
                if self._changes.no_cache and self._names.is_outermost:
                    switched = self._no_cache.before(module, kwargs)
                name = self._names.name_of(module)
                if self._survey is not None and name is not None:
                    opened = self._survey.before(name, module, args, kwargs)
            except Exception as error:
                self._guard.report("a changed forward", error)
        return opened, switched

    def _leave(self, module: Any, opened: tuple[Any, list[Any]], out: Any, has_failed: bool) -> None:
        row, switched = opened
        with self._guard.quiet():
            try:
                self._no_cache.after(switched)
                self._names.after(module)
                if row is not None and self._survey is not None:
                    self._survey.after(row, module, out, has_failed=has_failed)
            except Exception as error:
                self._guard.report("a changed forward", error)

    def _root_found(self, root: Any, found: dict[str, Any]) -> None:
        """Choose among the modules of a root those that are to run in another way."""
        if self._survey is not None and any(uses_cache(one) for one in configs_of(root)):
            self._survey.facts["has_cache"] = True
        if self._habits is not None:
            self._habits.root_found(root)
        if self._changes.offload:
            self._parameters |= {one.untyped_storage().data_ptr() for _, one in parameters_in(root)}
        for name, module in found.items():
            if name not in self._waiting:
                continue
            self._waiting.discard(name)
            why = reason_against(self._torch, module)
            if why is not None:
                self._refuse(name, why)
            elif name in self._changes.recompute:
                self._regions.choose(module, self._again_in_backward(name, module))
            else:
                self._regions.choose(module, Offload(self._torch, kept=lambda: self._parameters))

    def _again_in_backward(self, name: str, module: Any) -> Recompute:
        kept = frozenset(operator for owner, operator in self._changes.saved_by_module() if owner == name)
        if kept and not has_policies():
            self._warn("fix-refused", f"{name} is computed again whole: this torch keeps no results of operators")
            kept = frozenset()
        return Recompute(self._torch, name, module, refuse=self._refuse, on_again=self._again, kept=kept)

    def _refuse(self, name: str, why: str) -> None:
        if self._survey is not None:
            self._survey.failed(name, why)
        self._warn("fix-refused", f"{name} is left as it is: {why}")

    def _again(self, name: str) -> None:
        if self._survey is not None:
            self._survey.again(name)

    def _optimizer_created(self, optimizer: Any, *_args: Any, **_kwargs: Any) -> None:
        if self._survey is not None:
            kernels = optimizer_kernels(optimizer)
            kernels["against_small_states"] = reason_against_small_states(self._torch, optimizer)
            self._survey.facts.setdefault("optimizers", []).append(kernels)
        if self._changes.optimizer is not None:
            change_optimizer(optimizer, self._changes.optimizer)
        if self._habits is not None:
            self._habits.created(optimizer)

    def _refuse_step(self, why: str) -> None:
        self._refuse(STEP, why)


class _As:
    """A context that changes nothing."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, *_error: object) -> None:
        return None
