"""Where the callbacks are hung onto torch, and taken off again exactly."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from memtrace.hooks.loop.training_loop import TrainingLoop
from memtrace.hooks.torch_side.compilers import has_compiled, keep_from_compiler, program_has_global_hooks
from memtrace.hooks.torch_side.guard import Guard
from memtrace.hooks.torch_side.object_surges import ObjectSurges
from memtrace.hooks.torch_side.patches import Patches, stand_for_builtin
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
        self._module_handles: list[Any] = []
        self._are_paused = self._compiles = False
        self._surges = ObjectSurges(guard.wrap(loop.many_objects, name="after a collection"))
        keep_from_compiler(torch, guard.wrap(loop.many_objects, name="any"), self._surges.collected)

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
        averages = getattr(getattr(self._torch.optim, "swa_utils", None), "AveragedModel", None)
        if averages is not None:
            self._around(averages, "__init__", None, self._loop.average_created)

    def remove(self) -> None:
        """Take off everything, in reverse order."""
        self._take_off_module_hooks()
        self._surges.detach()
        self._patches.undo()
        while self._handles:
            self._handles.pop().remove()

    def add_module_hooks(self) -> None:
        """Attach the hooks that each module call pays for."""
        from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook

        modules = self._loop.modules
        modules.rests = False
        if not self._module_handles:
            self._module_handles = [
                register_module_forward_pre_hook(self._wrap(modules.before, name="forward pre-hook")),
                # Also on an exception: checkpointing ends each recomputation by one.
                register_module_forward_hook(self._wrap(modules.after, name="forward hook"), always_call=True),
            ]

    def remove_module_hooks(self) -> None:
        """Take them off: outside the window a module call must cost nothing.

        In a program that compiles they stay, and rest: its compiler would compile all of it anew if there were fewer.
        """
        if self._compiles or has_compiled():
            self._compiles = True
            self._loop.modules.rests = True
        else:
            self._take_off_module_hooks()

    def _compile_begins(self, *_args: Any, **_kwargs: Any) -> None:
        if not self._compiles:
            self._compiles = True
            is_open = bool(self._module_handles)
            self.add_module_hooks()
            self._loop.modules.rests = not is_open

    def _take_off_module_hooks(self) -> None:
        while self._module_handles:
            self._module_handles.pop().remove()

    def _add_optimizer_hooks(self) -> None:
        # Not as an attribute of torch.optim, which deletes the name of this submodule.
        from torch.optim.optimizer import (
            Optimizer,
            register_optimizer_step_post_hook,
            register_optimizer_step_pre_hook,
        )

        loop = self._loop
        self._handles = [
            register_optimizer_step_pre_hook(self._wrap(loop.before_optimizer, name="optimizer pre-hook")),
            register_optimizer_step_post_hook(self._wrap(loop.after_optimizer, name="optimizer post-hook")),
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
            original = getattr(autograd, name)
            before = self._loop.before_backward if name == "backward" else self._loop.before_grad
            self._around(autograd, name, before, self._loop.after_span)
            stand_for_builtin(original, getattr(autograd, name))

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
            self._around(memory, "_record_memory_history", yielding.before_history, yielding.after_history)
            self._around(memory, "change_current_allocator", yielding.on_pluggable_allocator, None)
        self._around(self._torch, "compile", yielding.on_compile, None)
        remote = sys.modules.get("torch.distributed.rpc.api")
        self._around(remote, "_init_rpc_states", None, yielding.remote_calls_begin)
        graphs = getattr(getattr(self._torch, "cuda", None), "graphs", None)
        if (graph := getattr(graphs, "CUDAGraph", None)) is not None:
            self._around(graph, "capture_begin", yielding.on_graph_capture, None)

    def _add_for_compilers(self) -> None:
        modules = sys.modules.get("torch.nn.modules.module")
        if hasattr(modules, "_has_any_global_hook"):
            own = program_has_global_hooks(modules, lambda: {handle.id for handle in self._module_handles})
            self._patches.replace(modules, "_has_any_global_hook", own)
        self._around(self._torch, "compile", self._compile_begins, None)
        export = getattr(self._torch, "export", None)
        self._around(export, "export", self._pause_module_hooks, self._resume_module_hooks)

    def _pause_module_hooks(self, *_args: Any, **_kwargs: Any) -> None:
        # Whatever they are, torch refuses to write a whole program down where there are some.
        self._are_paused = self._are_paused or bool(self._module_handles)
        self._take_off_module_hooks()

    def _resume_module_hooks(self, *_args: Any, **_kwargs: Any) -> None:
        if self._are_paused:
            self._are_paused = False
            rest = self._loop.modules.rests
            self.add_module_hooks()
            self._loop.modules.rests = rest

    def _around_both(self, owner: Any, name: str, before: Callable[..., None], after: Callable[..., None]) -> None:
        self._around(owner, name, before, after)

    def _around(
        self, owner: Any, name: str, before: Callable[..., None] | None, after: Callable[..., None] | None
    ) -> None:
        label = f"{getattr(owner, '__name__', owner)}.{name}"
        self._patches.around(
            owner,
            name,
            before=before and self._wrap(before, name=f"before {label}"),
            after=after and self._wrap(after, name=f"after {label}"),
        )
        # It calls what the program called, which the compiler may look at as ever.
        keep_from_compiler(self._torch, getattr(owner, name, None), with_calls=False)
