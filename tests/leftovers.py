"""What a test must not leave behind: hooks, patched attributes, a running profiler, handlers.

Every test is watched (`tests/conftest.py`), so a look takes some microseconds and imports nothing: what no test has
imported cannot have been changed.
"""

from __future__ import annotations

import inspect
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from types import CodeType
from typing import Any

import pytest

from memtrace.schema.options import OPTIONS_VARIABLE

PATCHED = (
    ("torch", "compile"),
    ("torch.export", "export"),
    ("torch.nn.modules.module", "_has_any_global_hook"),
    ("torch:Tensor", "backward"),
    ("torch.autograd", "backward grad"),
    ("torch.autograd.profiler", "_prepare_profiler _enable_profiler _disable_profiler"),
    ("torch.autograd.profiler:record_function", "__enter__ __exit__"),
    ("torch.nn.modules.module:Module", "__call__ _call_impl zero_grad"),
    ("torch.nn.parallel.distributed:DistributedDataParallel", "_ddp_init_helper"),
    ("torch._C._distributed_c10d:Reducer", "_rebuild_buckets"),
    ("torch.distributed.fsdp._fully_shard._fsdp_param_group:FSDPParamGroup", "wait_for_unshard post_backward"),
    ("torch.distributed._composable.fsdp._fsdp_param_group:FSDPParamGroup", "wait_for_unshard post_backward"),
    ("torch.optim.optimizer:Optimizer", "__init__ zero_grad"),
    ("torch.optim.swa_utils:AveragedModel", "__init__"),
    ("torch.amp.grad_scaler:GradScaler", "step"),
    ("torch.utils.data.dataloader:_BaseDataLoaderIter", "__next__"),
    ("torch.cuda.memory", "_record_memory_history change_current_allocator"),
    ("torch.xpu.memory", "_record_memory_history change_current_allocator"),
    ("torch.cuda.graphs:CUDAGraph", "capture_begin"),
    ("torch.multiprocessing.spawn", "_wrap"),
    ("torch.distributed.rpc.api", "_init_rpc_states"),
)
"""Attributes that memtrace puts something of its own in the place of: module, class in it, names."""

_HOOK_MODULES = ("torch.nn.modules.module", "torch.optim.optimizer")
_VARIABLES = (OPTIONS_VARIABLE, "KINETO_LOG_LEVEL", "HF_DEACTIVATE_ASYNC_LOAD")
_SIGNALS = (
    signal.SIGINT,
    signal.SIGTERM,
    signal.SIGHUP,
    signal.SIGQUIT,
    signal.SIGCHLD,
    signal.SIGUSR1,
    signal.SIGUSR2,
)
_TORCH_STATES = (
    ("profiler of torch", "torch._C._autograd", "_profiler_enabled"),
    ("function modes of torch", "torch._C", "_len_torch_function_stack"),
    ("dispatch modes of torch", "torch._C", "_len_torch_dispatch_stack"),
)
_PYTHON_STATES: tuple[tuple[str, Callable[[], object]], ...] = (
    ("sys.excepthook", lambda: (sys.excepthook, sys.__excepthook__)),
    ("threading.excepthook", lambda: (threading.excepthook, threading.__excepthook__)),
    # Only memtrace's own: other packages add finders when a test first imports them, and keep them.
    ("sys.meta_path", lambda: tuple(one for one in sys.meta_path if getattr(one, "is_memtrace_watcher", False))),
    # Only memtrace's own: pytest puts others there, and takes them off between tests.
    ("sys.unraisablehook", lambda: tuple(one for one in _unraisable_hooks() if _is_ours(one))),
    ("the profile function of Python", sys.getprofile),
    ("environment variables", lambda: tuple(os.environ.get(name) for name in _VARIABLES)),
    ("signal handlers", lambda: tuple(map(signal.getsignal, _SIGNALS))),
)
_MISSING = object()


def look() -> dict[str, object]:
    """Return what is there now, by the name of the place; of modules that are not loaded, nothing."""
    found = {name: state() for name, state in _PYTHON_STATES}
    if "torch" in sys.modules:
        found |= {name: state() for name, state in _torch_states()}
        found |= dict(_hooks())
        for place, owner, name in patched():
            found[f"{place}.{name}"] = attribute = vars(owner).get(name, _MISSING)
            found[f"the code of {place}.{name}"] = getattr(inspect.unwrap(attribute), "__code__", None)  # type: ignore[arg-type]
    return found


def patched() -> Iterator[tuple[str, Any, str]]:
    """Yield place, owner and name of each attribute of `PATCHED` whose owner is loaded."""
    for place, names in PATCHED:
        module, _, kind = place.partition(":")
        owner: Any = sys.modules.get(module)
        owner = getattr(owner, kind, None) if kind else owner
        if owner is not None:
            for name in names.split():
                yield place, owner, name


def _torch_states() -> Iterator[tuple[str, Callable[[], object]]]:
    for name, module, function in _TORCH_STATES:
        if (state := getattr(sys.modules.get(module), function, None)) is not None:
            yield name, state
    yield "memory history of torch", _memory_history


def _memory_history() -> object:
    torch: Any = sys.modules["torch"]
    # Before the device is initialised there is none, and to ask would end the process.
    return torch._C._cuda_isHistoryEnabled() if torch.cuda.is_initialized() else 0


def _hooks() -> Iterator[tuple[str, object]]:
    """Yield every table of global hooks that torch has, with the hooks in it."""
    for module in _HOOK_MODULES:
        for name, hooks in vars(sys.modules.get(module, _MISSING_MODULE)).items():
            if name.startswith("_global_") and isinstance(hooks, dict):
                yield f"{module}.{name}", tuple(hooks.values())


class _MISSING_MODULE:
    """Stands for a module that is not loaded: it has no tables."""


def left_behind(before: dict[str, object], after: dict[str, object]) -> list[str]:
    """Return the places that have changed. One that came with an import in between holds what torch puts there."""
    return [name for name, found in after.items() if found != before.get(name, _as_imported(name, found))]


def _unraisable_hooks() -> tuple[object, object]:
    return sys.unraisablehook, sys.__unraisablehook__


def _is_ours(function: object) -> bool:
    code = getattr(function, "__code__", None)
    return f"{os.sep}memtrace{os.sep}hooks{os.sep}" in getattr(code, "co_filename", "")


def _as_imported(name: str, found: object) -> object:
    if isinstance(found, CodeType):
        # Callbacks are constants of a code that they are woven into.
        return _MISSING if any(callable(one) for one in found.co_consts) else found
    if name.partition(" of ")[2] == "torch":
        return 0
    if isinstance(found, tuple):
        return ()
    return _MISSING if _is_ours(found) else found


def watch() -> Iterator[None]:
    """Fail, when resumed, if anything has been left behind since."""
    before = look()
    yield
    if changed := left_behind(before, look()):
        pytest.fail(f"the test leaves behind: {', '.join(changed)}")
