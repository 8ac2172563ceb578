"""What Python asks of a tensor: the device that a fake one shows, and the calls where C++ would choose by device.

C++ is told "meta" wherever the program says "cuda"; a program that asks is told "cuda" again, with its number.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode
from torch.utils import _device as torch_device

from memtrace.hooks.fake.cuda.devices import named, type_meant, type_name
from memtrace.hooks.fake.cuda.generators import is_fake
from memtrace.hooks.fake.events.assumptions import Assumptions
from memtrace.hooks.fake.events.storages import CUDA, HOST, PLAIN, FakeMemory
from memtrace.hooks.fake.kernels.attention import Attention
from memtrace.hooks.fake.kernels.cuda_results import rms_norm
from memtrace.hooks.fake.tensors.autocast import softmax_widens
from memtrace.hooks.fake.tensors.data_dependent_shapes import Bounds
from memtrace.hooks.fake.tensors.moves import parse_module_to, parsed_to
from memtrace.hooks.fake.tensors.reads import Reads, constant

_CPU = torch.device("cpu")
_META = torch.device("meta")
_SHOWN = {HOST: _CPU, PLAIN: _META}
_HOST_BYTES = 1 << 20
"""Fake tensors up to this size become real ones when they are moved to the host."""

_FROM_DATA = {torch.tensor, torch.as_tensor, torch.asarray}
"""Functions that make a tensor of the host's data."""

Handler = Callable[..., Any]
_SOFTMAX = {
    torch.softmax: torch.ops.aten._softmax.default,
    torch.Tensor.softmax: torch.ops.aten._softmax.default,
    torch.log_softmax: torch.ops.aten._log_softmax.default,
    torch.Tensor.log_softmax: torch.ops.aten._log_softmax.default,
}


def getter(name: str) -> Any:
    """Return what a torch function mode is told when an attribute of a tensor is read."""
    return getattr(torch.Tensor, name).__get__


class Functions(TorchFunctionMode):  # type: ignore[misc]  # torch leaves it untyped
    """Sees each call of torch from Python, above autograd."""

    def __init__(
        self,
        memory: FakeMemory,
        assumptions: Assumptions,
        attention: Attention,
        reads: Reads,
        *,
        handlers: Mapping[Any, Handler] | None = None,
    ) -> None:
        """`handlers` are those of others, by function."""
        super().__init__()
        self._memory = memory
        self._assumptions = assumptions
        self._reads = reads
        tensor = torch.Tensor
        self._handlers: dict[Any, Handler] = {
            getter("device"): self._device,
            getter("is_cuda"): lambda one: self._shown(one).type == "cuda",
            getter("is_cpu"): lambda one: self._shown(one).type == "cpu",
            getter("is_meta"): lambda one: self._shown(one).type == "meta",
            torch.Tensor.data.__set__: self._set_data,
            tensor.data_ptr: self._address,
            tensor.get_device: self._index,
            torch.get_device: self._index,
            torch._C._nn._parse_to: lambda *args, **kwargs: parse_module_to(args, kwargs, self._shown),
            tensor.to: self._to,
            tensor.new_tensor: self._new_tensor,
            tensor.cuda: lambda one, device=None, non_blocking=False, **_options: self._to(
                one, "cuda" if device is None else device
            ),
            tensor.cpu: lambda one, **_options: self._to(one, _CPU),
            tensor.pin_memory: lambda one, *_args: one,
            tensor.is_pinned: lambda _one, *_args: False,
            tensor.type: self._type,
            tensor.item: self._item,
            tensor.__float__: lambda one: float(self._item(one)),
            tensor.__int__: lambda one: int(self._item(one)),
            tensor.__bool__: lambda one: reads.truth(one) if one.is_meta else bool(one),
            tensor.__index__: lambda one: int(self._item(one)),
            tensor.tolist: lambda one: self._real(one).tolist(),
            tensor.numpy: lambda one, **options: self._real(one).numpy(**options),
            F.scaled_dot_product_attention: self._attending(attention.attend),
            F.one_hot: Bounds(memory, assumptions, reads.known).one_hot,
            torch.dropout: self._dropout,
            torch.rms_norm: rms_norm,
            **{one: _widening(one, kernel) for one, kernel in _SOFTMAX.items()},
            **(handlers or {}),
        }

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Answer a call, or let it run with "cuda" told as "meta"."""
        handler = self._handlers.get(func)
        if handler is not None:
            return handler(*args, **(kwargs or {}))
        if kwargs:
            kwargs = _without_what_is_not_there(kwargs)
        device = kwargs.get("device") if kwargs else None
        if device is None:
            device = torch_device.CURRENT_DEVICE
            if device is None or func not in torch_device._device_constructors():
                return func(*args, **(kwargs or {}))
        return self._placed(named(device), func, args, kwargs or {})

    def _placed(self, device: torch.device, func: Any, args: Any, kwargs: Any) -> Any:
        """Run a call that makes something on a device."""
        self._check_number(device)
        kwargs = {**kwargs, "device": device}
        if device.type == "cpu":
            return func(*args, **kwargs)
        if device.type == "meta":
            return self._forced(self._memory.forced_kind or PLAIN, func, *args, **kwargs)
        return self._forced(CUDA, func, *args, **{**kwargs, "device": _META})

    def _forced(self, kind: str, func: Any, *args: Any, **kwargs: Any) -> Any:
        memory = self._memory
        before, memory.forced_kind = memory.forced_kind, kind
        try:
            out = func(*args, **kwargs)
        finally:
            memory.forced_kind = before
        # `torch.tensor` makes its result where no mode is asked.
        if type(out) is torch.Tensor and _is_strided(out):
            memory.adopt(out, kind)
            if func in _FROM_DATA:
                self._reads.take(out, lambda: func(*args, **{**kwargs, "device": _CPU}))
        return out

    def _shown(self, one: Any) -> torch.device:
        kind = self._memory.kind_of(one)
        if kind is None:
            return one.device
        return self._gpu() if kind == CUDA else _SHOWN[kind]

    def _gpu(self) -> torch.device:
        return torch.device("cuda", self._memory.gpu.number)

    def _device(self, one: Any) -> torch.device:
        return self._shown(one)

    def _index(self, one: Any) -> int:
        return self._memory.gpu.number if self._shown(one).type == "cuda" else -1

    def _new_tensor(self, one: Any, data: Any, **options: Any) -> Any:
        # Like `torch.tensor`, it makes its result where no mode is asked.
        device = options.pop("device", None)
        device = self._shown(one) if device is None else named(device)
        options.setdefault("dtype", one.dtype)
        return self._placed(device, torch.tensor, (data,), options)

    def _check_number(self, device: torch.device) -> None:
        """Refuse a second GPU: what lies on it would be counted on the first that is used."""
        if device.type != "cuda":
            return
        first = self._memory.gpu.use(device.index)
        if first is not None:
            used = f"cuda:{self._memory.gpu.current}" if device.index is None else str(device)
            self._assumptions.refuse(f"one GPU of a process is predicted, here cuda:{first}, and this uses {used}")

    def _to(self, one: Any, *args: Any, **kwargs: Any) -> Any:
        device, dtype, rest = parsed_to(args, kwargs, self._shown)
        if device is not None:
            self._check_number(device)
        if dtype is not None:
            rest["dtype"] = dtype
        shown = self._shown(one)
        if device is None or device.type == shown.type:
            return one.to(**rest) if rest else one
        if device.type == "cuda":
            return self._onto(CUDA, one, rest)
        if device.type == "meta":
            return self._onto(PLAIN, one, rest)
        if self._memory.moves_module or one.numel() * one.element_size() > _HOST_BYTES:
            return self._onto(HOST, one, rest)
        return self._real(one).to(**rest)

    def _set_data(self, one: Any, value: Any) -> None:
        """Assign `one.data`: C++ refuses it between a tensor with data and one without."""
        if one.is_meta and not value.is_meta:
            value = self._onto(HOST, value, {})
        if value.is_meta and not one.is_meta:
            # The old tensor becomes the new one, unless something still needs its data.
            torch.utils.swap_tensors(one, value.detach().requires_grad_(one.requires_grad))
        else:
            one.data = value

    def _address(self, one: Any) -> int:
        if not one.is_meta:
            return int(one.data_ptr())
        # One without data on the host has no address, and yet is not the same as the next.
        start = self._memory.address_of(one.untyped_storage()) or int(one.untyped_storage()._cdata)
        return start + int(one.storage_offset()) * int(one.element_size())

    def _onto(self, kind: str, one: Any, rest: dict[str, Any]) -> Any:
        """Copy a tensor to a kind of storage; between two fake ones torch itself would see no need to."""
        if not one.is_meta:
            return self._forced(kind, one.to, device=_META, **rest)
        return self._forced(kind, one.to, **{**rest, "copy": True})

    def _attending(self, attend: Handler) -> Handler:
        def handler(query: Any, *args: Any, **kwargs: Any) -> Any:
            if query.layout is torch.jagged:
                self._assumptions.refuse(
                    "attention of nested tensors is not followed without data; --engine driverless does"
                )
            return attend(query, *args, **kwargs)

        return handler

    def _item(self, one: Any) -> Any:
        if not one.is_meta:
            return one.item()
        return self._reads.scalar(one)

    def _type(self, one: Any, dtype: Any = None, *_args: Any, **_kwargs: Any) -> Any:
        if dtype is None:
            return type_name(one.dtype, self._shown(one))
        meant = type_meant(dtype)
        return one.type(dtype) if meant is None else self._to(one, *meant)

    def described(self, one: Any) -> str:
        """Return what is printed for a fake tensor: there are no values to print."""
        self._assumptions.value("a tensor was printed without its values")
        where = f"device='{self._shown(one)}'"
        if not one.dim():
            return f"tensor({constant(one.dtype)}, {where})"
        return f"tensor(..., {where}, size={tuple(one.shape)}, dtype={one.dtype})"

    def _real(self, one: Any) -> Any:
        return self._reads.tensor(one) if one.is_meta else one

    def _dropout(self, one: Any, p: float, train: bool) -> Any:
        # CUDA's kernel keeps a mask of one byte an element, the other path one of the input's type.
        if one.is_meta and train and 0 < p < 1:
            return torch.native_dropout(one, p, train)[0]
        return torch.dropout(one, p, train)


def _widening(function: Any, kernel: Any) -> Handler:
    """Return a softmax that writes float32 from float16 without a copy, as CUDA's does, if it is asked to."""

    def handler(*args: Any, **kwargs: Any) -> Any:
        one, dim, dtype = (
            args[at] if len(args) > at else kwargs.get(name) for at, name in enumerate(("input", "dim", "dtype"))
        )
        if isinstance(one, torch.Tensor) and isinstance(dim, int) and softmax_widens(one, dtype):
            return kernel(one, dim, True)
        return function(*args, **kwargs)

    return handler


def _is_strided(one: Any) -> bool:
    return bool(one.is_meta) and one.layout is torch.strided


def _without_what_is_not_there(kwargs: dict[str, Any]) -> dict[str, Any]:
    """Drop what C++ would refuse without an accelerator: pinned memory, and a generator of the GPU's."""
    if kwargs.get("pin_memory") or is_fake(kwargs.get("generator")):
        return {name: one for name, one in kwargs.items() if name not in ("pin_memory", "generator")}
    return kwargs
