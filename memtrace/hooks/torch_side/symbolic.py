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
    tracing = getattr(torch._C, "_get_tracing_state", _nothing)
    transform = getattr(getattr(torch._C, "_functorch", None), "peek_interpreter_stack", _nothing)
    # Very often there is no mode at all, which is one question instead of three.
    num_modes = getattr(torch._C, "_len_torch_dispatch_stack", _one)
    has_mode = _modes_check(torch)
    is_exporting = getattr(torch.compiler, "is_exporting", _nothing)

    def is_symbolic() -> bool:
        if tracing() is not None or transform() is not None or (num_modes() and has_mode()) or is_exporting():
            return True
        # Asking torch's own function would warn.
        tracer: ModuleType | None = sys.modules.get(_FX_TRACER)
        return tracer is not None and bool(getattr(tracer, "_is_fx_tracing_flag", False))

    return is_symbolic


def _modes_check(torch: Any) -> Callable[[], bool]:
    """Fake, proxy and functional modes, which torch keeps apart from the modes of programs."""
    active = getattr(torch._C, "_get_dispatch_mode", None)
    keys = getattr(torch._C, "_TorchDispatchModeKey", None)
    found = [key for name in ("FAKE", "PROXY", "FUNCTIONAL") if (key := getattr(keys, name, None)) is not None]
    if active is None:
        return lambda: False
    return lambda: any(active(key) is not None for key in found)


def _nothing() -> None:
    return None


def _one() -> int:
    return 1
