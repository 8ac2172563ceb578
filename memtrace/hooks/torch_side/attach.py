"""Where the callbacks are hung onto torch, and taken off again exactly."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from memtrace.hooks.loop.training_loop import TrainingLoop
from memtrace.hooks.torch_side.compilers import keep_from_compiler, program_has_global_hooks
from memtrace.hooks.torch_side.guard import Guard
from memtrace.hooks.torch_side.hook_numbers import without_number
from memtrace.hooks.torch_side.module_calls import ModuleCalls
from memtrace.hooks.torch_side.object_surges import ObjectSurges
from memtrace.hooks.torch_side.patches import Patches
from memtrace.hooks.torch_side.yield_to_program import Yielding


class Attachments:
    """Everything that was registered with torch or wrapped in it."""

    def __init__(self, torch: Any, guard: Guard, loop: TrainingLoop, yielding: Yielding) -> None:
        self._torch = torch
        self._wrap = guard.wrap
        self._loop = loop
        self._yielding = yielding
        self._patches = Patches()
        self._handles: list[Any] = []
        self._follows_compiled_calls = False
        self._module_calls = ModuleCalls(torch, loop.modules, guard.wrap)
        self._on_many = guard.wrap(loop.many_objects, name="after a collection or very many events")
        self._surges = ObjectSurges(self._on_many)
        keep_from_compiler(torch, self._on_many, self._surges.collected)

    def add(self) -> None:
        """Attach everything but the module hooks."""
        self._add_optimizer_hooks()
        self._add_backward_hooks()
        self._add_data_hooks()
        self._add_range_hooks()
        self._add_yielding()
        self._add_for_compilers()
        self._loop.communication.attach(self._around_both)
        self._loop.on_root = lambda: self._loop.communication.attach_late(self._around_both)
        self._surges.attach()
        self._loop.tell_of_many_events(self._on_many)
        averages = getattr(getattr(self._torch.optim, "swa_utils", None), "AveragedModel", None)
        if averages is not None:
            self._around(averages, "__init__", None, self._loop.average_created)

    def remove(self) -> None:
        """Take off everything, in reverse order."""
        self._module_calls.take_out()
        self._surges.detach()
        self._loop.tell_of_many_events(None)
        self._patches.undo()
        while self._handles:
            self._handles.pop().remove()

    def add_module_hooks(self) -> None:
        """Follow each call of a module, which costs a little."""
        self._module_calls.add()

    def remove_module_hooks(self) -> None:
        """Follow none, outside the window."""
        self._module_calls.remove()

    def _add_optimizer_hooks(self) -> None:
        # Not as an attribute of torch.optim, which deletes the name of this submodule.
        from torch.optim.optimizer import (
            Optimizer,
            register_optimizer_step_post_hook,
            register_optimizer_step_pre_hook,
        )

        loop = self._loop
        self._handles = [
            without_number(register(self._wrap(function, name=name)))
            for register, function, name in (
                (register_optimizer_step_pre_hook, loop.before_optimizer, "optimizer pre-hook"),
                (register_optimizer_step_post_hook, loop.after_optimizer, "optimizer post-hook"),
            )
        ]
        self._around(Optimizer, "__init__", None, loop.optimizer_created)
        self._around(Optimizer, "zero_grad", loop.before_zero_grad, None)
        self._around(self._torch.nn.Module, "zero_grad", loop.before_zero_grad, None)
        scaler = getattr(getattr(self._torch, "amp", None), "GradScaler", None)
        if scaler is not None:
            self._around(scaler, "step", loop.before_scaler, loop.after_scaler)

    def _add_backward_hooks(self) -> None:
        # `Tensor.backward` calls this one, so both ways are seen.
        autograd = self._torch.autograd
        for name in ("backward", "grad"):
            before = self._loop.before_backward if name == "backward" else self._loop.before_grad
            # The gradient of 1 that it begins with is freed as it returns, and would outlive backward otherwise.
            self._around(autograd, name, before, self._loop.after_span, is_wrapped=True)

    def _add_data_hooks(self) -> None:
        from torch.utils.data import dataloader

        iterator = getattr(dataloader, "_BaseDataLoaderIter", None)
        if iterator is not None:
            self._around(iterator, "__next__", self._loop.before_data, self._loop.after_span)

    def _add_range_hooks(self) -> None:
        ranges = getattr(self._torch.autograd.profiler, "record_function", None)
        if ranges is not None:
            self._around(ranges, "__enter__", self._loop.range_began, None)
            self._around(ranges, "__exit__", None, self._loop.range_ended)

    def _add_yielding(self) -> None:
        yielding, profiler = self._yielding, self._torch.autograd.profiler
        self._around(profiler, "_prepare_profiler", yielding.before_preparation, yielding.after_preparation)
        self._around(profiler, "_enable_profiler", yielding.before_profiler, None)
        self._around(profiler, "_disable_profiler", None, yielding.after_profiler)
        if (memory := yielding.history_module()) is not None:
            # Our own source calls it too, where torch initialises a device.
            changes = yielding.before_history, yielding.after_history
            self._around(memory, "_record_memory_history", *changes, is_wrapped=True)
            self._around(memory, "change_current_allocator", yielding.on_pluggable_allocator, None)
        self._around(self._torch, "compile", self._compile_begins, self._compile_ends)
        remote = sys.modules.get("torch.distributed.rpc.api")
        self._around(remote, "_init_rpc_states", None, yielding.remote_calls_begin)
        graphs = getattr(getattr(self._torch, "cuda", None), "graphs", None)
        if (graph := getattr(graphs, "CUDAGraph", None)) is not None:
            self._around(graph, "capture_begin", yielding.on_graph_capture, None)

    def _compile_begins(self, *_args: Any, **_kwargs: Any) -> None:
        self._yielding.on_compile()
        self._module_calls.compile_begins()

    def _compile_ends(self, *_args: Any, **_kwargs: Any) -> None:
        """Follow the calls of compiled functions, each of which asks how it is to be compiled, and their optimizers."""
        dynamo = sys.modules.get("torch._dynamo.eval_frame")
        if dynamo is not None and not self._follows_compiled_calls:
            self._follows_compiled_calls = True
            self._loop.program_compiles()
            self._around(dynamo, "_callback_from_stance", self._loop.compiled_call_begins, None)
            variables: Any = sys.modules.get("torch._dynamo.variables.optimizer")
            optimizer = getattr(variables, "OptimizerVariable", None)
            # Not by the guard, which does nothing while torch compiles.
            self._patches.around(optimizer, "var_getattr", before=self._loop.optimizer_is_compiled, is_wrapped=True)

    def _add_for_compilers(self) -> None:
        """Hide the hooks of module calls from torch's compilers, where there are any."""
        calls, modules = self._module_calls, sys.modules.get("torch.nn.modules.module")
        if not calls.by_hooks:
            return
        if hasattr(modules, "_has_any_global_hook"):
            own = program_has_global_hooks(modules, lambda: calls.hook_ids)
            self._patches.replace(modules, "_has_any_global_hook", own)
        export = getattr(self._torch, "export", None)
        self._around(export, "export", calls.pause, calls.resume)

    def _around_both(self, owner: Any, name: str, before: Callable[..., None], after: Callable[..., None]) -> None:
        self._around(owner, name, before, after)

    def _around(
        self,
        owner: Any,
        name: str,
        before: Callable[..., None] | None,
        after: Callable[..., None] | None,
        *,
        is_wrapped: bool = False,
    ) -> None:
        original = getattr(owner, name, None)
        label = f"{getattr(owner, '__name__', owner)}.{name}"
        self._patches.around(
            owner,
            name,
            before=before and self._wrap(before, name=f"before {label}"),
            after=after and self._wrap(after, name=f"after {label}"),
            is_wrapped=is_wrapped,
        )
        if (now := getattr(owner, name, None)) is not original:
            # It calls what the program called, which the compiler may look at as ever.
            keep_from_compiler(self._torch, now, with_calls=False)
