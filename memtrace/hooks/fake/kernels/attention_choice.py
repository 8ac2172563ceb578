"""Which kernel of `scaled_dot_product_attention` CUDA would run.

In: the fake query, key and value, and what was asked for. Out: a `Backend`. The conditions are those of
`aten/src/ATen/native/transformers/cuda/sdp_utils.cpp` for tensors that are neither nested nor on AMD, as torch has them
with CUDA 13 and its cuDNN. Flags and priorities are asked of torch itself, which keeps them without a GPU.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import torch

_HALF = (torch.float16, torch.bfloat16)


class Backend(IntEnum):
    """The kernels, by torch's own numbers (`SDPBackend`)."""

    MATH = 0
    FLASH = 1
    EFFICIENT = 2
    CUDNN = 3


_PLAIN_ORDER = (Backend.FLASH, Backend.EFFICIENT, Backend.MATH, Backend.CUDNN)
"""The order before a program sets one: `cudnn` stands behind `math`, where it is never reached."""
_HOPPER_ORDER = (Backend.CUDNN, Backend.FLASH, Backend.EFFICIENT, Backend.MATH)
"""What torch puts in its place on compute capability 9 and 10 (`check_prefer_cudnn_attention`)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Attended:
    """A call of `scaled_dot_product_attention` with four-dimensional tensors: batch, heads, rows, width."""

    query: Any
    key: Any
    value: Any
    has_mask: bool
    dropout: float
    is_causal: bool
    enable_gqa: bool

    @property
    def needs_grad(self) -> bool:
        """Whether any of the three will get a gradient."""
        wants = any(one.requires_grad for one in (self.query, self.key, self.value))
        return wants and torch.is_grad_enabled()

    @property
    def widths(self) -> tuple[int, int, int]:
        """Elements of a row of query, key and value."""
        return self.query.shape[-1], self.key.shape[-1], self.value.shape[-1]

    def has_matching_heads(self, *, of_key_and_value: bool) -> bool:
        """Return whether heads are equal, or may be shared; `of_key_and_value`: those two must be equal then."""
        query, key, value = (one.shape[1] for one in (self.query, self.key, self.value))
        if query == key == value:
            return True
        divides = query % key == 0 and query % value == 0
        return self.enable_gqa and divides and (key == value or not of_key_and_value)


def choose_backend(call: Attended, capability: tuple[int, int]) -> Backend:
    """Return the kernel that CUDA would run on a GPU of this compute capability; `MATH` where no other is able to.

    >>> half = torch.empty(8, 12, 1024, 64, dtype=torch.bfloat16, device="meta")
    >>> call = Attended(query=half, key=half, value=half, has_mask=False, dropout=0.0, is_causal=True, enable_gqa=False)
    >>> choose_backend(call, (8, 0)).name, choose_backend(call, (9, 0)).name, choose_backend(call, (7, 5)).name
    ('FLASH', 'CUDNN', 'MATH')
    """
    able = {Backend.CUDNN: _can_cudnn, Backend.FLASH: _can_flash, Backend.EFFICIENT: _can_efficient}
    shapes = (call.query.shape[0] == call.key.shape[0] == call.value.shape[0]) and call.query.numel() > 0
    for backend in _order(capability):
        if backend is Backend.MATH:
            break
        if shapes and able[backend](call, capability):
            return backend
    return Backend.MATH


def _order(capability: tuple[int, int]) -> tuple[Backend, ...]:
    known = {backend.value for backend in Backend}
    order = tuple(Backend(one) for one in torch._C._get_sdp_priority_order() if one in known)
    return _HOPPER_ORDER if order == _PLAIN_ORDER and capability[0] in (9, 10) else order


def _can_cudnn(call: Attended, capability: tuple[int, int]) -> bool:
    key_rows, query_rows = call.key.shape[2], call.query.shape[2]
    deterministic = torch.are_deterministic_algorithms_enabled()
    return (
        torch.backends.cuda.cudnn_sdp_enabled()
        and (8, 0) <= capability <= (12, 1)
        and _has_16_bits(call)
        and not (deterministic and not torch.is_deterministic_algorithms_warn_only_enabled())
        and call.dropout * 16 == int(call.dropout * 16)
        and call.has_matching_heads(of_key_and_value=False)
        and _fits_cudnn(call, capability)
        and key_rows != 1
        and not (call.dropout and query_rows == 1)
    )


def _fits_cudnn(call: Attended, capability: tuple[int, int]) -> bool:
    width, _, width_of_value = call.widths
    is_latent = (width, width_of_value) == (192, 128) and capability[0] in (9, 10)
    limit = 256 if capability == (9, 0) else 192 if is_latent else 128
    return max(width, width_of_value) <= limit and width % 8 == 0 and width_of_value % 8 == 0


def _can_flash(call: Attended, capability: tuple[int, int]) -> bool:
    width = call.widths[0]
    return (
        torch.backends.cuda.flash_sdp_enabled()
        and (8, 0) <= capability <= (12, 1)
        and not call.has_mask
        and _has_16_bits(call)
        and set(call.widths) == {width}
        and width <= 256
        and _can_differentiate_wide_rows(call, capability)
        and not (call.is_causal and call.query.shape[2] != call.key.shape[2])
        and call.has_matching_heads(of_key_and_value=True)
    )


def _can_differentiate_wide_rows(call: Attended, capability: tuple[int, int]) -> bool:
    """Return whether the flash kernel has a backward pass: some GPUs have too little shared memory for wide rows."""
    is_small = (8, 6) <= capability <= (8, 9) or (12, 0) <= capability <= (12, 1)
    width = call.widths[0]
    return not (is_small and call.needs_grad) or width <= 192 or (not call.dropout and width > 224)


def _can_efficient(call: Attended, capability: tuple[int, int]) -> bool:
    width, width_of_key, width_of_value = call.widths
    types = (torch.float16, torch.float32, torch.bfloat16) if capability >= (8, 0) else (torch.float16, torch.float32)
    aligned = _alignment(call, capability)
    starts = (one.storage_offset() for one in (call.query, call.key, call.value))
    return (
        torch.backends.cuda.mem_efficient_sdp_enabled()
        and (5, 0) <= capability <= (12, 1)
        and _has_type_among(call, types)
        and width == width_of_key
        and width % aligned == 0
        and width_of_value % aligned == 0
        and (capability < (8, 0) or all(start % aligned == 0 for start in starts))
        and call.query.shape[1] == call.key.shape[1] == call.value.shape[1]
    )


def _alignment(call: Attended, capability: tuple[int, int]) -> int:
    """Return by how many elements rows must divide (`minimum_gemm_alignment`)."""
    is_half = call.query.dtype in _HALF
    tensor_cores = capability >= (8, 0) or (capability >= (7, 0) and is_half)
    least = 4 if capability >= (8, 0) else 1
    return max(least, 8 if is_half else 4) if tensor_cores else least


def _has_16_bits(call: Attended) -> bool:
    return _has_type_among(call, _HALF)


def _has_type_among(call: Attended, types: tuple[torch.dtype, ...]) -> bool:
    return call.query.dtype in types and call.query.dtype is call.key.dtype is call.value.dtype
