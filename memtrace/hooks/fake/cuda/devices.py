"""Names of the device that C++ does not have: `torch.device(0)`, and old classes such as `torch.cuda.FloatTensor`."""

from __future__ import annotations

from typing import Any

import torch

_HostDevice: Any = torch.device
_Kind: Any = type(_HostDevice)

_OLD_TYPES = {
    "FloatTensor": torch.float32,
    "DoubleTensor": torch.float64,
    "HalfTensor": torch.float16,
    "BFloat16Tensor": torch.bfloat16,
    "ByteTensor": torch.uint8,
    "CharTensor": torch.int8,
    "ShortTensor": torch.int16,
    "IntTensor": torch.int32,
    "LongTensor": torch.int64,
    "BoolTensor": torch.bool,
}
_NAMES = {dtype: f"torch.cuda.{name}" for name, dtype in _OLD_TYPES.items()}


def is_number(device: Any) -> bool:
    """Return whether a device is told by its number alone, as a rank is: also one of numpy.

    >>> is_number(0), is_number("cuda:0"), is_number(None), is_number(True)
    (True, False, False, False)
    """
    return not isinstance(device, (bool, str, torch.Tensor)) and hasattr(type(device), "__index__")


def named(device: Any) -> torch.device:
    """Return the device that a program means by a name, a number (always the accelerator's) or a device."""
    return _HostDevice("cuda", device.__index__()) if is_number(device) else _HostDevice(device)


class _DeviceKind(type):
    """Makes the class below equal to torch's own in all but identity."""

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        (only,) = (*args, *kwargs.values()) if len(args) + len(kwargs) == 1 else (None,)
        return named(only) if is_number(only) else _HostDevice(*args, **kwargs)

    def __instancecheck__(cls, one: Any) -> bool:
        return isinstance(one, _HostDevice)

    def __eq__(cls, other: object) -> bool:
        return other is cls or other is _HostDevice

    def __hash__(cls) -> int:
        return hash(_HostDevice)


class device(metaclass=_DeviceKind):
    """Stands in for `torch.device`, which refuses a bare number where there is no accelerator."""


device.__module__ = "torch"


class _OldKind(type):
    """Makes and recognises tensors of an old class."""

    dtype: torch.dtype

    def __call__(cls, *args: Any, **_kwargs: Any) -> Any:
        if len(args) == 1 and not isinstance(args[0], int):
            make = torch.empty if isinstance(args[0], torch.Size) else torch.tensor
            return make(args[0], dtype=cls.dtype, device="cuda")
        return torch.empty(args or (0,), dtype=cls.dtype, device="cuda")

    def __instancecheck__(cls, one: Any) -> bool:
        return isinstance(one, torch.Tensor) and one.is_cuda and one.dtype is cls.dtype


def type_name(dtype: torch.dtype, device: torch.device) -> str:
    """Return what `Tensor.type()` says.

    >>> type_name(torch.float16, torch.device("cuda")), type_name(torch.float16, torch.device("cpu"))
    ('torch.cuda.HalfTensor', 'torch.HalfTensor')
    """
    name = _NAMES.get(dtype, "torch.cuda.Tensor")
    return name if device.type == "cuda" else name.replace("cuda.", "")


def type_meant(kind: Any) -> tuple[str, torch.dtype] | None:
    """Return device and dtype of an old class or of its name; `None` for anything else."""
    text = f"{kind.__module__}.{kind.__name__}" if isinstance(kind, type) else str(kind)
    space, _, name = text.rpartition(".")
    if isinstance(kind, _OldKind):
        space, name = "torch.cuda", kind.__name__
    if name not in _OLD_TYPES or space not in ("torch", "torch.cuda"):
        return None
    return ("cuda" if space == "torch.cuda" else "cpu"), _OLD_TYPES[name]


def install() -> None:
    """Put the classes in place. Affects: `torch.device`, `torch.cuda`."""
    module: Any = torch
    module.device = device
    for name, dtype in _OLD_TYPES.items():
        setattr(torch.cuda, name, _OldKind(name, (), {"dtype": dtype}))
