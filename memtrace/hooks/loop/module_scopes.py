"""Module scopes: one row a forward call of a module, by two global forward hooks. Each call costs two appends.

No backward hooks: torch's full backward hooks insert views and break models with in-place operations.
"""

from __future__ import annotations

import sys
import threading
import weakref
from collections.abc import Callable, Container
from time import time_ns
from types import CodeType, FrameType
from typing import Any

from memtrace.hooks.failure.tracebacks import shorten_module_call
from memtrace.hooks.loop.recursion_room import RecursionRoom
from memtrace.hooks.ownership.module_tree import modules_in
from memtrace.hooks.parts.chunk import Row

_Label = tuple[str, str]


class _Calls(threading.local):
    """The module calls that run now, of one thread: label, key, start."""

    def __init__(self) -> None:
        self.open: list[tuple[_Label, int, int, bool]] = []


class ModuleScopes:
    """Knows the roots (modules called from outside any other), names what is inside them, and emits scopes."""

    def __init__(
        self,
        torch: Any,
        *,
        emit: Callable[[Row], None],
        on_root: Callable[[Any, tuple[Any, ...]], None],
        after_root: Callable[[Any], None],
        on_recompute: Callable[[int, int], None],
        step: Callable[[], int],
        watched: Container[int],
        on_watched: Callable[[Any], None],
    ) -> None:
        """`on_watched` is called before each training forward of a module whose identity is among `watched`."""
        self._watched = watched
        self._on_watched = on_watched
        self._in_backward = torch._C._current_graph_task_id
        self._call_code = getattr(getattr(torch.nn.Module, "_call_impl", None), "__code__", None)
        self.takes_frames = False
        """Whether torch takes a frame more for each call, as it does where there are hooks."""
        self._room = RecursionRoom()
        self._emit = emit
        self._on_root = on_root
        self._after_root = after_root
        self._on_recompute = on_recompute
        self._step = step
        self._calls = _Calls()
        self._labels: dict[int, _Label] = {}
        self._roots: dict[int, weakref.ref[Any]] = {}
        self.rests = False
        """Whether no call is taken note of, although hooks are there: a compiler would miss them."""

    def roots(self) -> list[Any]:
        """Return the roots that are still alive, in the order in which they were first called."""
        return [root for reference in self._roots.values() if (root := reference()) is not None]

    def before(self, module: Any, args: tuple[Any, ...]) -> None:
        """Forward pre-hook: open a scope."""
        if self.rests:
            return
        open_calls = self._calls.open
        key = id(module)
        self._room.for_hook(len(open_calls))
        # A plain loop: each call of a module comes here.
        for call in open_calls:
            if call[1] == key:
                if not self._runs_inside_itself():
                    # An exception left its scope open.
                    self._unwind(key)
                break
        recompute = self._in_backward() != -1
        if not open_calls and not recompute:
            self._enter_root(module)
            self._on_root(module, args)
        if key in self._watched and not recompute:
            self._on_watched(module)
        label = self._labels.get(key) or self._label_late(module)
        open_calls.append((label, key, time_ns(), recompute))
        self._room.for_modules(len(open_calls), frames_each=self.takes_frames)

    def after(self, module: Any, args: tuple[Any, ...], output: Any) -> None:
        """Forward hook: close the scope, and those inside it that an exception left open."""
        if self.rests:
            if output is None:
                shorten_module_call()
            return
        now = time_ns()
        open_calls = self._calls.open
        self._room.for_hook(len(open_calls))
        if output is None:
            # The module has failed, or returns nothing.
            shorten_module_call()
        self._close(id(module), now, output)
        self._room.for_modules(len(open_calls), frames_each=self.takes_frames)

    def _close(self, key: int, now: int, output: Any) -> None:
        open_calls = self._calls.open
        while open_calls:
            label, opened, start_ns, recompute = open_calls.pop()
            self._emit((*label, start_ns, now, self._step(), recompute))
            if opened == key:
                if not open_calls:
                    self._closed_outermost(start_ns, now, recompute, output)
                return

    def flush(self) -> None:
        """Emit the scopes of this thread that are open, with the end unknown: the program fails inside them."""
        for label, _key, start_ns, recompute in self._calls.open:
            self._emit((*label, start_ns, None, self._step(), recompute))

    def _closed_outermost(self, start_ns: int, end_ns: int, recompute: bool, output: Any) -> None:
        if recompute:
            self._on_recompute(start_ns, end_ns)
        else:
            self._after_root(output)

    def _runs_inside_itself(self) -> bool:
        """Whether all calls that are open run: one of torch's frames for each, and one for the call that begins."""
        frame: FrameType | None = sys._getframe()
        num_running = 0
        while frame is not None:
            num_running += self._is_module_call(frame.f_code)
            frame = frame.f_back
        return num_running > len(self._calls.open)

    def _is_module_call(self, code: CodeType) -> bool:
        # Woven, it is another code with the same name and place.
        call = self._call_code
        return code is call or (
            call is not None and code.co_name == call.co_name and code.co_filename == call.co_filename
        )

    def _unwind(self, key: int) -> None:
        open_calls = self._calls.open
        while open_calls and open_calls.pop()[1] != key:
            pass

    def _enter_root(self, module: Any) -> None:
        known = self._roots.get(id(module))
        if known is None or known() is not module:
            self._roots[id(module)] = weakref.ref(module)
            self._name_all(module)

    def _name_all(self, root: Any) -> None:
        # A second model must not share paths with the first: its own start with its class.
        own = type(root).__name__
        prefix = f"{own}." if len(self.roots()) > 1 else ""
        for name, module in modules_in(root):
            self._labels[id(module)] = (f"{prefix}{name}" if name else own, type(module).__name__)

    def _label_late(self, module: Any) -> _Label:
        """Name a module that its root did not hold when it was first called."""
        for root in self.roots():
            self._name_all(root)
        label = (type(module).__name__, type(module).__name__)
        return self._labels.setdefault(id(module), label)
