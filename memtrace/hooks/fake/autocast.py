"""Mixed precision on the fake device: the kernels of the dispatch key AutocastCUDA, for meta tensors.

`torch.autocast` switches that key on and off in C++ as ever; the key is included for all tensors, and these kernels
cast what is fake. Which operators there are is asked of the dispatcher; the two short lists say which of them run in
the lower type and which promote, as in `ATen/autocast_mode.h`. All others run in float32.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import torch

_LOWER = (
    "_convolution convolution conv1d conv2d conv3d conv_tbc conv_transpose1d conv_transpose2d conv_transpose3d "
    "cudnn_convolution cudnn_convolution_transpose prelu addmm addmv addr matmul einsum mm mv linalg_vecdot linear "
    "addbmm baddbmm bmm chain_matmul linalg_multi_dot _thnn_fused_lstm_cell _thnn_fused_gru_cell lstm_cell gru_cell "
    "rnn_tanh_cell rnn_relu_cell _scaled_dot_product_flash_attention scaled_dot_product_attention"
)
_PROMOTED = "addcdiv addcmul atan2 bilinear cross dot vdot grid_sampler index_put tensordot scatter_add"
_OWN_HALF = {"softmax.int": "_softmax", "log_softmax.int": "_log_softmax"}
"""Operators whose kernel reads 16 bits and writes 32, so that no copy of the input is made."""
_REFUSED = frozenset({"binary_cross_entropy"})

_KEY = torch._C.DispatchKey.AutocastCUDA


class Autocast:
    """The kernels, and the casts of parameters that are kept until autocast ends."""

    def __init__(self) -> None:
        self._library = torch.library.Library("aten", "IMPL")
        self._lower, self._promoted = frozenset(_LOWER.split()), frozenset(_PROMOTED.split())
        self._off = torch._C.DispatchKeySet(_KEY)
        self._kept: dict[int, tuple[Any, Any]] = {}
        self._include: Any = None

    def install(self) -> None:
        """Register the kernels, once a process. Affects: the dispatcher; the key is included in this thread."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for name in torch._C._dispatch_get_registrations_for_dispatch_key("AutocastCUDA"):
                space, _, rest = name.partition("::")
                base = rest.partition(".")[0]
                if space == "aten" and base not in _REFUSED:
                    self._library.impl(rest, self._kernel(rest, base), "AutocastCUDA")
        self._include = torch._C._IncludeDispatchKeyGuard(_KEY)
        self._include.__enter__()
        clear = torch.clear_autocast_cache

        def clear_both() -> None:
            self._kept.clear()
            clear()

        torch.clear_autocast_cache = clear_both

    def _kernel(self, name: str, base: str) -> Callable[..., Any]:
        packet, _, overload = name.partition(".")
        operator = getattr(getattr(torch.ops.aten, packet), overload or "default")
        off = self._off
        if name in _OWN_HALF:
            return self._own_half(operator, getattr(torch.ops.aten, _OWN_HALF[name]).default)

        def kernel(*args: Any, **kwargs: Any) -> Any:
            with torch._C.DisableTorchFunction(), torch._C._ExcludeDispatchKeyGuard(off):
                dtype = self._dtype(base, args)
                args = tuple(self._cast(one, dtype) for one in args)
                return operator(*args, **{key: self._cast(one, dtype) for key, one in kwargs.items()})

        return kernel

    def _own_half(self, operator: Any, kernel_of_cuda: Any) -> Callable[..., Any]:
        def kernel(one: Any, dim: int, dtype: Any = None) -> Any:
            with torch._C.DisableTorchFunction(), torch._C._ExcludeDispatchKeyGuard(self._off):
                if dtype is None and one.is_meta and one.dtype in (torch.float16, torch.bfloat16):
                    return kernel_of_cuda(one, dim, True)
                wanted = dtype or (torch.float32 if one.is_meta and one.is_floating_point() else None)
                return operator(one, dim, wanted)

        return kernel

    def _dtype(self, base: str, args: Any) -> torch.dtype:
        if base in self._lower:
            return torch.get_autocast_dtype("cuda")
        if base in self._promoted:
            found = [one for one in args if isinstance(one, torch.Tensor) and one.is_meta and one.is_floating_point()]
            wide = any(one.dtype is torch.float32 for one in found)
            return torch.float32 if wide else torch.get_autocast_dtype("cuda")
        return torch.float32

    def _cast(self, value: Any, dtype: torch.dtype) -> Any:
        if isinstance(value, torch.Tensor):
            is_eligible = value.is_meta and value.is_floating_point() and value.dtype is not torch.float64
            if not is_eligible or value.dtype is dtype:
                return value
            return self._kept_cast(value, dtype)
        if isinstance(value, (list, tuple)):
            return type(value)([self._cast(one, dtype) for one in value])
        return value

    def _kept_cast(self, value: Any, dtype: torch.dtype) -> Any:
        """Cast as `cached_cast` does: that of a float32 parameter is kept as long as autocast is on."""
        keeps = value.dtype is torch.float32 and dtype is not torch.float32 and value.is_leaf and value.requires_grad
        if not keeps or value._is_view() or not torch.is_autocast_cache_enabled():
            return value.to(dtype)
        known = self._kept.get(id(value))
        if known is None:
            known = self._kept[id(value)] = (value, value.to(dtype))
        return known[1]
