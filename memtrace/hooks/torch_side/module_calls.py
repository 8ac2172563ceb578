"""How calls of modules are followed: woven into torch's own function, or by its global hooks where that cannot be.

Hooks can be seen: torch takes a frame more to `forward` as soon as there is one, its compiler compiles anew when their
number changes, and it refuses to export.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from memtrace.hooks.loop.module_scopes import ModuleScopes
from memtrace.hooks.torch_side.compilers import has_compiled
from memtrace.hooks.torch_side.hook_numbers import without_number
from memtrace.hooks.torch_side.weaving import Woven, weave

Wrap = Callable[..., Callable[..., None]]


class ModuleCalls:
    """Puts the callbacks of module calls in place, and takes them out outside the window."""

    def __init__(self, torch: Any, modules: ModuleScopes, wrap: Wrap) -> None:
        """`wrap` guards a callback."""
        self._modules = modules
        self._before = wrap(modules.before, name="forward pre-hook")
        self._after = wrap(modules.after, name="forward hook")
        self._compiles = self._is_there = self._is_paused = False
        self._way = self._woven(torch) or _Hooks(self._before, self._after)
        self._modules.takes_frames = self.by_hooks

    @property
    def by_hooks(self) -> bool:
        """Whether it is done by hooks."""
        return isinstance(self._way, _Hooks)

    @property
    def hook_ids(self) -> set[int]:
        """The keys of the hooks that are ours."""
        return self._way.ids if isinstance(self._way, _Hooks) else set()

    def add(self) -> None:
        """Follow each call of a module."""
        self._modules.rests = False
        self._put_in()

    def remove(self) -> None:
        """Follow none: outside the window a module call must cost nothing.

        In a program that compiles the callbacks stay, and rest: its compiler would compile all of it anew otherwise.
        """
        if self._compiles or has_compiled():
            self._compiles = True
            self._modules.rests = True
        else:
            self.take_out()

    def take_out(self) -> None:
        """Leave nothing of ours in torch."""
        if self._is_there:
            self._is_there = False
            self._way.take_out()

    def compile_begins(self, *_args: Any, **_kwargs: Any) -> None:
        """The program calls the compiler, which must meet what it will meet later."""
        if not self._compiles:
            self._compiles = True
            is_open = self._is_there
            self.add()
            self._modules.rests = not is_open

    def pause(self, *_args: Any, **_kwargs: Any) -> None:
        """The program is about to be written down, which torch refuses where there are hooks, whatever they are."""
        self._is_paused = self._is_paused or self._is_there
        self.take_out()

    def resume(self, *_args: Any, **_kwargs: Any) -> None:
        """It was."""
        if self._is_paused:
            self._is_paused = False
            self._put_in()

    def _put_in(self) -> None:
        if not self._is_there:
            self._is_there = True
            self._way.put_in()

    def _woven(self, torch: Any) -> Woven | None:
        function = getattr(torch.nn.Module, "_call_impl", None)
        return weave(function, self._before, self._after, given=("self", "args"), with_result=True)


class _Hooks:
    """Torch's global hooks."""

    def __init__(self, before: Callable[..., None], after: Callable[..., None]) -> None:
        self._before = before
        self._after = after
        self._handles: list[Any] = []

    @property
    def ids(self) -> set[int]:
        return {handle.id for handle in self._handles}

    def put_in(self) -> None:
        from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook

        self._handles = [
            without_number(register_module_forward_pre_hook(self._before)),
            # Also on an exception: checkpointing ends each recomputation by one.
            without_number(register_module_forward_hook(self._after, always_call=True)),
        ]

    def take_out(self) -> None:
        while self._handles:
            self._handles.pop().remove()
