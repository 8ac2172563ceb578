"""What Fourier transforms take beside their results: copies, and the scratch of cuFFT.

`SpectralOps.cpp` gives every plan its scratch from the caching allocator. How much cuFFT asks for is not public: as
much as the data that is transformed, as complex numbers, is taken, which the driverless engine says as well. Data is
copied where it does not lie in steps that cuFFT knows (`CuFFTPlanCache.h`), and always before it becomes real, since
cuFFT writes over it then.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch

_aten = torch.ops.aten
_AT_ONCE = 3
"""Dimensions that one plan transforms."""


def temporary_sizes() -> dict[Any, Callable[[Any], tuple[int, ...]]]:
    """Return, by operator, the bytes of what it holds at once beside its result, from its arguments.

    >>> real = torch.empty(8, 100, device="meta")
    >>> temporary_sizes()[_aten._fft_r2c.default]((real, [1], 0, True)) == (8 * 100 * 8,)
    True
    """
    return {
        _aten._fft_r2c.default: _to_complex,
        _aten._fft_c2c.default: _of_complex,
        _aten._fft_c2r.default: _to_real,
    }


def _to_complex(args: Any) -> tuple[int, ...]:
    one, dims, onesided = args[0], args[1], args[3]
    number = 2 * one.element_size()
    sizes = list(one.shape)
    held = [one.numel() * number]
    if _is_one_plan(dims):
        return (*_copy(one, dims), *held)
    if onesided:
        sizes[dims[-1]] = sizes[dims[-1]] // 2 + 1
    # The last dimension is transformed first, into a result of its own.
    return (math.prod(sizes) * number, *held)


def _of_complex(args: Any) -> tuple[int, ...]:
    one, dims = args[0], args[1]
    if not dims:
        return ()
    size = one.numel() * one.element_size()
    between = (size,) if len(dims) > _AT_ONCE else ()
    return (*between, *_copy(one, dims), size)


def _to_real(args: Any) -> tuple[int, ...]:
    one, dims, last = args[0], args[1], args[3]
    sizes = list(one.shape)
    sizes[dims[-1]] = last
    return (one.numel() * one.element_size(), math.prod(sizes) * one.element_size())


def _is_one_plan(dims: Sequence[int]) -> bool:
    return len(dims) <= _AT_ONCE and list(dims[:2]) != [0, 1]


def _copy(one: Any, dims: Sequence[int]) -> tuple[int, ...]:
    """Return the bytes of a copy, if one is made: of a number that is seen at many places, or between others' steps."""
    shape, strides = one.shape, one.stride()
    others = sorted((at for at in range(one.dim()) if at not in dims), key=lambda at: -strides[at])
    inner = [(shape[at], strides[at]) for at in dims]
    if _lies_in_steps(inner) and _is_one_step([(shape[at], strides[at]) for at in others]):
        return ()
    return (one.numel() * one.element_size(),)


def _lies_in_steps(inner: Sequence[tuple[int, int]]) -> bool:
    last = inner[-1][1]
    if last <= 0:
        return False
    for size, stride in inner[-2::-1]:
        if size == 1:
            continue
        if stride <= 0 or stride % last:
            return False
        last = stride
    return True


def _is_one_step(others: Sequence[tuple[int, int]]) -> bool:
    """Return whether the dimensions that are not transformed can be seen as one."""
    seen = [(size, stride) for size, stride in others if size != 1]
    if seen and seen[-1][1] <= 0:
        return False
    return all(upper == lower * size for (_, upper), (size, lower) in itertools.pairwise(seen))
