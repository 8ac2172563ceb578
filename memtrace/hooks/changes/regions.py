"""Forwards of chosen modules, run in another way: the class's `forward` asks for each call whether it is a chosen one.

The class is changed and not the module: a module that is copied, saved or compared is as it was. Only `forward` itself
is run in another way, so that hooks of the module, those of FSDP among them, run around it and once.
"""

from __future__ import annotations

import functools
import threading
import weakref
from collections.abc import Callable
from typing import Any

from memtrace.hooks.torch_side.patches import Patches, hide_from_warnings

Run = Callable[[Callable[..., Any], tuple[Any, ...], dict[str, Any]], Any]
"""Runs a forward: it is given the forward, and its arguments."""


class _Inside(threading.local):
    """Whether a chosen forward runs now, in one thread: what is inside it is run as ever."""

    active = False


class Regions:
    """The modules that are run in another way, and how."""

    def __init__(self, torch: Any) -> None:
        self._torch = torch
        self._runs: dict[int, tuple[weakref.ref[Any], Run]] = {}
        self._patched: set[type] = set()
        self._patches = Patches()
        self._inside = _Inside()

    def choose(self, module: Any, run: Run) -> None:
        """Run the forwards of a module in training through `run` from now on."""
        self._runs[id(module)] = weakref.ref(module), run
        self._patch(type(module))

    def remove(self) -> None:
        """Let every forward run as ever."""
        self._patches.undo()
        self._runs.clear()
        self._patched.clear()

    def _patch(self, kind: Any) -> None:
        if kind in self._patched:
            return
        self._patched.add(kind)
        original, chosen = kind.forward, self._chosen

        @functools.wraps(original)
        def forward(module: Any, *args: Any, **kwargs: Any) -> Any:
            run = chosen(module)
            if run is None:
                return original(module, *args, **kwargs)
            return run(functools.partial(original, module), args, kwargs)

        hide_from_warnings(forward)
        self._patches.replace(kind, "forward", forward)

    def _chosen(self, module: Any) -> Run | None:
        known = self._runs.get(id(module))
        if known is None or known[0]() is not module or self._inside.active or not self._is_training_forward():
            return None
        return functools.partial(self._run_inside, known[1])

    def _run_inside(self, run: Run, forward: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        self._inside.active = True
        try:
            return run(forward, args, kwargs)
        finally:
            self._inside.active = False

    def _is_training_forward(self) -> bool:
        torch = self._torch
        if not torch.is_grad_enabled() or torch.compiler.is_compiling():
            return False
        return torch._C._current_graph_task_id() == -1 and not has_saved_tensor_hooks(torch)


def has_saved_tensor_hooks(torch: Any) -> bool:
    """Return whether hooks of someone else say how tensors are kept for backward: checkpointing, or offloading."""
    top = getattr(torch._C._autograd, "_top_saved_tensors_default_hooks", None)
    return top is not None and top(True) is not None
