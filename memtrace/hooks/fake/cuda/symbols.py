"""Private symbols of `torch._C` that only a CUDA build has, and libraries bind when they are imported."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from memtrace.hooks.fake.cuda.accelerator import always, index_calls
from memtrace.hooks.fake.events.gpu_number import GpuNumber

_DECLARED = re.compile(r"^def (_cuda_\w+)\(", re.MULTILINE)
_OWN = "_cuda_memorySnapshot"
"""By this one a recording tells whether torch can record the memory of a GPU."""
_ZERO = "getCurrentRawStream getCurrentBlasHandle getCurrentSolverHandle"
_SILENT = "init synchronize setStream emptyCache ipc_collect sleep set_sync_debug_mode"


def answers(num_devices: int, cuda_version: str) -> dict[str, Any]:
    """Return what those functions answer that say something of the device, by name."""
    major, minor = cuda_version.split(".")[:2]
    short = {
        **dict.fromkeys(_ZERO.split(), 0),
        **dict.fromkeys(_SILENT.split()),
        "getDeviceCount": num_devices,
        "getCompiledVersion": 1000 * int(major) + 10 * int(minor),
        "getCurrentStream": (0, 0, 1),
        "getDefaultStream": (0, 0, 1),
        "isCurrentStreamCapturing": False,
        "isInBadFork": False,
        "hasPrimaryContext": True,
        "canDeviceAccessPeer": True,
        "getAllocatorBackend": "native",
    }
    return {f"_cuda_{name}": value for name, value in short.items()}


def install(gpu: GpuNumber, cuda_version: str) -> None:
    """Put functions in place: with an answer, or one that says that it has none. Affects: `torch._C`."""
    internal: Any = torch._C
    calls = {f"_cuda_{name}": call for name, call in index_calls(gpu).items()}
    known = {name: always(value) for name, value in answers(gpu.count, cuda_version).items()} | calls
    for name, call in known.items():
        setattr(internal, name, call)
    for name in _declared() - known.keys() - {_OWN}:
        if not hasattr(internal, name):
            setattr(internal, name, _without_answer(name))


def _declared() -> set[str]:
    """Return the names that torch's own stub file, which is the same for every build, declares."""
    try:
        text = (Path(torch.__file__).parent / "_C" / "__init__.pyi").read_text(encoding="utf-8")
    except OSError:
        return set()
    return set(_DECLARED.findall(text))


def _without_answer(name: str) -> Callable[..., Any]:
    def refuse(*_args: Any, **_kwargs: Any) -> Any:
        raise NotImplementedError(f"torch._C.{name} has no answer without a GPU: memtrace predict does not foresee it")

    return refuse
