"""Mixed precision on the fake device: the kernels of the dispatch key AutocastCUDA, for meta tensors.

`torch.autocast` switches that key on and off in C++ as ever; the key is included for all tensors, and these kernels
cast what is fake. Which operators there are is asked of the dispatcher; the short lists say which of them run in the
lower type, which promote and which are told to answer in float32, as in `ATen/autocast_mode.h`. All others get their
inputs cast to float32.
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
_ANSWERS_IN_FLOAT32 = (
    "prod prod.dim_int cumprod cumsum linalg_vector_norm linalg_matrix_norm linalg_matrix_norm.str_ord sum "
    "sum.dim_IntList"
)
"""Operators that are told their result's type, as softmax is: the input is not cast (`fp32_set_opt_dtype`)."""
_NORMS = {"norm.Scalar": "ScalarOpt_dtype", "norm.ScalarOpt_dim": "ScalarOpt_dim_dtype"}
"""Operators that become another, which takes the result's type (`fp32_append_dtype`)."""
_REFUSED = frozenset({"binary_cross_entropy"})

_KEY = torch._C.DispatchKey.AutocastCUDA
_aten = torch.ops.aten


_OWN_HALF = {"softmax.int": _aten._softmax.default, "log_softmax.int": _aten._log_softmax.default}


def softmax_widens(one: Any, dtype: torch.dtype | None) -> bool:
    """Return whether CUDA's softmax reads this input and writes `dtype` itself, so that no copy is made.

    That is so from float16 to float32 alone: bfloat16 is copied first (`SoftMax.cpp`).
    """
    return bool(one.is_meta) and one.dtype is torch.float16 and dtype is torch.float32


def _is_eligible(value: Any) -> bool:
    """Return whether autocast casts this."""
    is_fake = isinstance(value, torch.Tensor) and value.is_meta
    return is_fake and value.is_floating_point() and value.dtype is not torch.float64


def _wanted(value: Any) -> torch.dtype | None:
    return torch.float32 if _is_eligible(value) else None


class KeptCasts:
    """Casts as `cached_cast` does: that of a float32 parameter is kept as long as autocast is on."""

    def __init__(self) -> None:
        self._kept: dict[int, tuple[Any, Any]] = {}

    def clear(self) -> None:
        """Let go of what is kept."""
        self._kept.clear()

    def cast(self, value: Any, dtype: torch.dtype) -> Any:
        """Return a tensor, or those of a list, in a type; what autocast does not cast stays as it is."""
        if isinstance(value, torch.Tensor):
            if not _is_eligible(value) or value.dtype is dtype:
                return value
            return self._cast(value, dtype)
        if isinstance(value, (list, tuple)):
            return type(value)([self.cast(one, dtype) for one in value])
        return value

    def _cast(self, value: Any, dtype: torch.dtype) -> Any:
        keeps = value.dtype is torch.float32 and dtype is not torch.float32 and value.is_leaf and value.requires_grad
        if not keeps or value._is_view() or not torch.is_autocast_cache_enabled() or torch.is_inference_mode_enabled():
            return value.to(dtype)
        known = self._kept.get(id(value))
        if known is None:
            # A step of the graph even where autograd is off, so that it serves later where it is on.
            with torch.enable_grad():
                known = self._kept[id(value)] = (value, value.to(dtype))
        return known[1]


class Autocast:
    """The kernels."""

    def __init__(self, casts: KeptCasts) -> None:
        self._casts = casts
        self._library = torch.library.Library("aten", "IMPL")
        self._lower, self._promoted = frozenset(_LOWER.split()), frozenset(_PROMOTED.split())
        self._answers_in_float32 = frozenset(_ANSWERS_IN_FLOAT32.split())
        self._off = torch._C.DispatchKeySet(_KEY)
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
            self._casts.clear()
            clear()

        torch.clear_autocast_cache = clear_both

    def _kernel(self, name: str, base: str) -> Callable[..., Any]:
        packet, _, overload = name.partition(".")
        operator = getattr(getattr(torch.ops.aten, packet), overload or "default")
        if name in _OWN_HALF:
            return self._softmax(operator, _OWN_HALF[name])
        if name in self._answers_in_float32:
            return self._answering(operator)
        if name in _NORMS:
            return self._norm(operator, getattr(torch.ops.aten.norm, _NORMS[name]))
        off = self._off

        def kernel(*args: Any, **kwargs: Any) -> Any:
            with torch._C.DisableTorchFunction(), torch._C._ExcludeDispatchKeyGuard(off):
                dtype = self._dtype(base, args)
                # C++ evaluates the arguments of a call from the last to the first, and casts each as it does.
                kwargs = {key: self._casts.cast(one, dtype) for key, one in reversed(kwargs.items())}
                args = tuple([self._casts.cast(one, dtype) for one in reversed(args)][::-1])
                return operator(*args, **kwargs)

        return kernel

    def _answering(self, operator: Any) -> Callable[..., Any]:
        """Return a kernel that asks for a result in float32 where the call does not say which type it shall have."""

        def kernel(one: Any, *args: Any, dtype: Any = None) -> Any:
            with torch._C.DisableTorchFunction(), torch._C._ExcludeDispatchKeyGuard(self._off):
                return operator(one, *args, dtype=dtype or _wanted(one))

        return kernel

    def _softmax(self, operator: Any, kernel_of_half: Any) -> Callable[..., Any]:
        def kernel(one: Any, dim: int, dtype: Any = None) -> Any:
            with torch._C.DisableTorchFunction(), torch._C._ExcludeDispatchKeyGuard(self._off):
                dtype = dtype or _wanted(one)
                if softmax_widens(one, dtype):
                    return kernel_of_half(one, dim, True)
                return operator(one, dim, dtype)

        return kernel

    def _norm(self, operator: Any, typed: Any) -> Callable[..., Any]:
        def kernel(one: Any, p: Any = 2, *rest: Any) -> Any:
            with torch._C.DisableTorchFunction(), torch._C._ExcludeDispatchKeyGuard(self._off):
                if not _is_eligible(one):
                    return operator(one, p, *rest)
                # With dimensions, this overload has no default for the flag that comes last.
                rest = (*rest, False) if len(rest) == 1 else rest
                return typed(one, p, *rest, dtype=torch.float32)

        return kernel

    def _dtype(self, base: str, args: Any) -> torch.dtype:
        if base in self._lower:
            return torch.get_autocast_dtype("cuda")
        if base in self._promoted:
            found = [one for one in args if isinstance(one, torch.Tensor) and one.is_meta and one.is_floating_point()]
            wide = any(one.dtype is torch.float32 for one in found)
            return torch.float32 if wide else torch.get_autocast_dtype("cuda")
        return torch.float32
