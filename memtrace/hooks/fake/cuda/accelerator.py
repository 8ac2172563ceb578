"""The accelerator that C++ does not have: `torch.accelerator`, and copies of a tensor to the GPUs of a process."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from memtrace.hooks.fake.cuda import streams
from memtrace.hooks.fake.events.gpu_number import GpuNumber

_SILENT_CALLS = "setStream synchronizeDevice emptyCache emptyHostCache resetPeakStats"


def always(value: Any) -> Callable[..., Any]:
    """Return a function that answers this, whatever it is asked."""

    def answer(*_args: Any, **_kwargs: Any) -> Any:
        return value

    return answer


def install(gpu: GpuNumber, capability: tuple[int, int]) -> None:
    """Put the answers in place. Affects: `torch.accelerator`, `torch._C`, `torch.set_default_tensor_type`."""
    accelerator: Any = getattr(torch, "accelerator", None)
    if accelerator is not None:
        _install_functions(accelerator, gpu)
    internal: Any = torch._C
    answers = {
        "getAccelerator": torch.device("cuda"),
        "getDeviceCapability": capability,
        "getStream": streams.Stream(),
        "isAllocatorInitialized": False,
        **dict.fromkeys(_SILENT_CALLS.split()),
    }
    for name, value in answers.items():
        setattr(internal, f"_accelerator_{name}", always(value))
    for name, call in index_calls(gpu, "DeviceIndex").items():
        setattr(internal, f"_accelerator_{name}", call)
    for copy in (_broadcast, _broadcast_coalesced, _scatter, _gather):
        setattr(internal, copy.__name__, copy)
    _replace_default_type()


def index_calls(gpu: GpuNumber, index: str = "Device") -> dict[str, Callable[..., Any]]:
    """Return what C++ answers of the number of the current device; `index` is what such a number is called."""

    def choose(device: Any) -> None:
        gpu.choose(device)

    return {
        f"get{index}": lambda: gpu.current,
        f"set{index}": choose,
        **dict.fromkeys(("exchangeDevice", "maybeExchangeDevice"), gpu.choose),
    }


def _install_functions(accelerator: Any, gpu: GpuNumber) -> None:
    for name, value in {
        "is_available": True,
        "device_count": gpu.count,
        "current_accelerator": torch.device("cuda"),
        "synchronize": None,
        "set_stream": None,
        "current_stream": streams.Stream(),
    }.items():
        if hasattr(accelerator, name):
            setattr(accelerator, name, always(value))
    calls = index_calls(gpu)
    for name in ("index", "idx"):
        if hasattr(accelerator, f"set_device_{name}"):
            setattr(accelerator, f"current_device_{name}", calls["getDevice"])
            setattr(accelerator, f"set_device_{name}", calls["setDevice"])


def _broadcast(tensor: Any, devices: Sequence[int]) -> list[Any]:
    return [tensor.to("cuda") for _ in devices]


def _broadcast_coalesced(tensors: Sequence[Any], devices: Sequence[int], _buffer_bytes: int) -> list[list[Any]]:
    return [[one.to("cuda") for one in tensors] for _ in devices]


def _scatter(tensor: Any, devices: Sequence[int], sizes: Any, dim: int, _streams: Any = None) -> list[Any]:
    parts = tensor.chunk(len(devices), dim) if sizes is None else tensor.split(list(sizes), dim)
    return [one.to("cuda") for one in parts]


def _gather(tensors: Sequence[Any], dim: int, destination: int | None = None) -> Any:
    return torch.cat(list(tensors), dim).to("cpu" if destination == -1 else "cuda")


def _replace_default_type() -> None:
    """Let a program make one of CUDA's old classes the default: that is a default type and a default device."""
    from memtrace.hooks.fake.cuda.devices import type_meant

    module: Any = torch
    choose = module.set_default_tensor_type

    def set_default_tensor_type(kind: Any) -> None:
        device, dtype = type_meant(kind) or (None, None)
        if device is None:
            choose(kind)
            return
        torch.set_default_dtype(dtype)
        torch.set_default_device(device if device == "cuda" else None)

    module.set_default_tensor_type = set_default_tensor_type
