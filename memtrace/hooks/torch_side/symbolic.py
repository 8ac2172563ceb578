"""Whether the program runs only to be written down: traced, exported, transformed, or with tensors that hold nothing.

What a hook does then with a tensor becomes part of the program's graph, or of the recording without being true.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

_FX_TRACER = "torch.fx._symbolic_trace"


def symbolic_check(torch: Any) -> Callable[[], bool]:
    """Return a function that says whether such a run is under way in this thread. It is asked first in each hook.

    `torch.compiler.is_compiling` is asked before it, apart: Dynamo reads that one as a constant.
    """
    checks = [check for make in (_jit_check, _modes_check, _functorch_check) if (check := make(torch)) is not None]
    is_exporting = getattr(torch.compiler, "is_exporting", None)
    if is_exporting is not None:
        checks.append(is_exporting)

    def is_symbolic() -> bool:
        for check in checks:
            if check():
                return True
        # Asking torch's own function would warn.
        tracer: ModuleType | None = sys.modules.get(_FX_TRACER)
        return tracer is not None and bool(getattr(tracer, "_is_fx_tracing_flag", False))

    return is_symbolic


def _jit_check(torch: Any) -> Callable[[], bool] | None:
    state = getattr(torch._C, "_get_tracing_state", None)
    return None if state is None else lambda: state() is not None


def _modes_check(torch: Any) -> Callable[[], bool] | None:
    """Fake, proxy and functional modes, which torch keeps apart from the modes of programs."""
    active = getattr(torch._C, "_get_dispatch_mode", None)
    keys = getattr(torch._C, "_TorchDispatchModeKey", None)
    found = [key for name in ("FAKE", "PROXY", "FUNCTIONAL") if (key := getattr(keys, name, None)) is not None]
    if active is None or not found:
        return None
    return lambda: any(active(key) is not None for key in found)


def _functorch_check(torch: Any) -> Callable[[], bool] | None:
    innermost = getattr(getattr(torch._C, "_functorch", None), "peek_interpreter_stack", None)
    return None if innermost is None else lambda: innermost() is not None
