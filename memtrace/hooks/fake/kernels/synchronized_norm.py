"""Shapes of what synchronized batch norm is made of: only CUDA has these operators (`Normalization.cu`)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

_aten = torch.ops.aten


def answers() -> dict[Any, Callable[..., Any]]:
    """Return what to call in the place of each operator."""
    return {
        _aten.batch_norm_stats.default: lambda one, *_args: _channels(one, 2),
        _aten.batch_norm_gather_stats_with_counts.default: lambda one, *_args: _channels(one, 2),
        _aten.batch_norm_elemt.default: lambda one, *_args: torch.empty_like(one),
        _aten.batch_norm_backward_reduce.default: _reduced,
        _aten.batch_norm_backward_elemt.default: lambda _gradient, one, *_args: torch.empty_like(one),
    }


def _channels(one: Any, count: int) -> tuple[Any, ...]:
    """Return numbers of each channel, which are kept in float32 where the input has 16 bits."""
    dtype = torch.float64 if one.dtype is torch.float64 else torch.float32
    return tuple(one.new_empty(one.shape[1], dtype=dtype) for _ in range(count))


def _reduced(_gradient: Any, one: Any, _mean: Any, _deviation: Any, weight: Any, *wanted: bool) -> tuple[Any, ...]:
    """Return both sums, and gradients of weight and bias where these are wanted."""
    of_input, of_weight, of_bias = wanted
    sums = _channels(one, 2) if of_input else (None, None)
    gradients = (torch.empty_like(weight) if weight is not None and asked else None for asked in (of_weight, of_bias))
    return (*sums, *gradients)
