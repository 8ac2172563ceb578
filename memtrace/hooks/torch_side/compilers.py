"""What torch's compiler sees of a recording: as little as can be."""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection
from types import FunctionType, MethodType
from typing import Any

_GLOBAL_HOOKS = (
    *("_global_backward_pre_hooks", "_global_backward_hooks", "_global_forward_pre_hooks", "_global_forward_hooks"),
    *("_global_forward_hooks_always_called", "_global_forward_hooks_with_kwargs"),
)


def keep_from_compiler(torch: Any, *functions: Any, with_calls: bool = True) -> None:
    """Let the compiler compile neither these functions nor what they call, where Python runs them by themselves.

    In a compiled function that it breaks off, it looks at everything that is called from there. What it inlines it
    reads in another way.
    """
    frames = getattr(getattr(torch._C, "_dynamo", None), "eval_frame", None)
    set_strategy = getattr(frames, "set_code_exec_strategy", None)
    if set_strategy is None or frames is None:
        return
    skip, ask = frames._FrameAction.SKIP, frames._FrameAction.DEFAULT
    for function in functions:
        if isinstance(function, (FunctionType, MethodType)):
            set_strategy(function.__code__, frames._FrameExecStrategy(skip, skip if with_calls else ask))


def has_compiled() -> bool:
    """Return whether torch's compiler has been at work, called by whatever name."""
    counters = getattr(sys.modules.get("torch._dynamo.utils"), "counters", {})
    return bool(counters.get("frames"))


def program_has_global_hooks(modules: Any, own_ids: Callable[[], Collection[int]]) -> Callable[[], bool]:
    """Return what to put in the place of torch's `_has_any_global_hook`, of which its compiler makes a warning.

    `own_ids` returns the keys of the hooks that are ours.
    """

    def has_any_global_hook() -> bool:
        own = own_ids()
        return any(key not in own for name in _GLOBAL_HOOKS for key in getattr(modules, name, ()))

    return has_any_global_hook
