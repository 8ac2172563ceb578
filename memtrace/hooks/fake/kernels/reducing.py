"""Operators that reduce a tensor, and what each takes while it does (`reductions.py`).

In: an operator, its arguments and its result. Out: bytes of what it holds at once and gives back.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from memtrace.hooks.fake.kernels.reductions import Multiprocessors, Values, scratch_bytes
from memtrace.schema.gpu_cards import LIMITS, card_like, is_amd
from memtrace.schema.options import PredictOptions

_aten = torch.ops.aten
_WIDE_LOADS = {1: 16, 2: 8}
"""Elements that a sum loads at once, by their bytes; others are four."""
_PAIR_BYTES = 16
"""A value and its place."""
_MOMENTS_BYTES = {8: 32}
"""Mean, deviation and counts, by the bytes of an element; others take 16."""


def _summed(element: int, partial: int) -> Values:
    return Values(element, partial, loads=_WIDE_LOADS.get(element, 4))


def _extreme(element: int, _partial: int) -> Values:
    return Values(element, element)


def _placed(element: int, _partial: int) -> Values:
    return Values(element, _PAIR_BYTES)


def _flagged(element: int, _partial: int) -> Values:
    return Values(element, 1)


def _moments(element: int, _partial: int) -> Values:
    return Values(element, _MOMENTS_BYTES.get(element, 16), loads=2, unrolls=2)


_SCANS = {_aten.cumsum.default, _aten.cumprod.default}
_Kind = Callable[[int, int], Values]
"""Makes values of the bytes of an element and of a number that such elements are added up in."""
_OPERATORS: dict[str, tuple[int | None, _Kind]] = {
    "sum.default": (None, _summed),
    "sum.dim_IntList": (1, _summed),
    "mean.default": (None, Values),
    "mean.dim": (1, Values),
    "prod.default": (None, Values),
    "prod.dim_int": (1, Values),
    "linalg_vector_norm.default": (2, Values),
    "max.default": (None, _extreme),
    "min.default": (None, _extreme),
    "amax.default": (1, _extreme),
    "amin.default": (1, _extreme),
    "max.dim": (1, _placed),
    "min.dim": (1, _placed),
    "argmax.default": (1, _placed),
    "argmin.default": (1, _placed),
    "any.default": (None, _flagged),
    "any.dim": (1, _flagged),
    "all.default": (None, _flagged),
    "all.dim": (1, _flagged),
    "var.correction": (1, _moments),
    "std.correction": (1, _moments),
    "var_mean.correction": (1, _moments),
    "std_mean.correction": (1, _moments),
}
"""Where the dimensions stand among the arguments, and what is reduced; without dimensions all of a tensor is."""


def multiprocessors_of(gpu: PredictOptions) -> Multiprocessors | None:
    """Return those of the GPU that is told of, or of one of its kind; `None` where they reduce by other rules.

    >>> t4 = PredictOptions(gpu_name="t4-16gb", gpu_bytes=16 << 30, capability=(7, 5), num_steps=0)
    >>> multiprocessors_of(t4)
    Multiprocessors(number=40, threads=1024)
    """
    card = card_like(gpu.gpu_name, gpu.capability)
    if card is None or is_amd(card) or card.capability not in LIMITS:
        return None
    return Multiprocessors(card.multiprocessors, LIMITS[card.capability].threads)


class Reductions:
    """What reductions take on one GPU."""

    def __init__(self, gpu: Multiprocessors | None) -> None:
        """Without multiprocessors, as for GPUs of other vendors, nothing is known."""
        self._gpu = gpu
        found = {} if gpu is None else _OPERATORS
        self._operators = {_overload(name): what for name, what in found.items()}

    def held(self, func: Any, args: Sequence[Any], out: Any) -> tuple[int, ...]:
        """Return the bytes of what an operator holds at once while it reduces."""
        if self._gpu is None:
            return ()
        if func is _aten.convolution_backward.default:
            return self._of_bias(args)
        if func in _SCANS:
            # Numbers are cast whole to the type that they are added up in (`ScanKernels.cpp`).
            return (out.numel() * out.element_size(),) if args[0].dtype is not out.dtype else ()
        what = self._operators.get(func)
        if what is None or args[0].layout is not torch.strided:
            return ()
        return self._of(args, out, *what)

    def _of(self, args: Sequence[Any], out: Any, place: int | None, kind: _Kind) -> tuple[int, ...]:
        one = args[0]
        strides, element = one.stride(), one.element_size()
        result = out[0] if isinstance(out, tuple) else out
        copied = 0
        if kind in (Values, _summed) and _is_cast(one.dtype, result.dtype):
            # Numbers of another type than the result's are cast first.
            element = result.element_size()
            copied = one.numel() * element
        elif kind is _extreme and place is None and not one.is_contiguous():
            copied = one.numel() * element
            strides = torch.empty(one.shape, device="meta").stride()
        partial = 8 if element == 8 or not one.is_floating_point() else 4
        dims = _dims(one.dim(), args[place] if place is not None and len(args) > place else None)
        return self._sizes(one.shape, strides, dims, kind(element, partial), copied)

    def _of_bias(self, args: Sequence[Any]) -> tuple[int, ...]:
        """The gradient of a convolution's bias is a sum of that of its result over all but the channels."""
        gradient, wanted = args[0], args[10]
        if not wanted[2]:
            return ()
        dims = [at for at in range(gradient.dim()) if at != 1]
        values = _summed(gradient.element_size(), 8 if gradient.element_size() == 8 else 4)
        # By then it lies densely: cuDNN has it copied otherwise.
        strides = torch.empty_like(gradient).stride()
        return self._sizes(gradient.shape, strides, dims, values, 0)

    def _sizes(
        self, shape: Sequence[int], strides: Sequence[int], dims: list[int], values: Values, copied: int
    ) -> tuple[int, ...]:
        assert self._gpu is not None
        return tuple(size for size in (copied, *scratch_bytes(shape, strides, dims, values, self._gpu)) if size)


def _overload(name: str) -> Any:
    packet, overload = name.split(".")
    return getattr(getattr(_aten, packet), overload)


def _is_cast(given: torch.dtype, made: torch.dtype) -> bool:
    """Return whether a reduction casts all of its input: floats of 16 bits are read as they are for one of 32."""
    is_read = given in (torch.float16, torch.bfloat16) and made is torch.float32
    return given is not made and not is_read


def _dims(number: int, asked: Any) -> list[int]:
    """Return the dimensions that are reduced; asked for none, or not at all, those are all."""
    if asked is None or (isinstance(asked, (list, tuple)) and not asked):
        return list(range(number))
    return [at % max(number, 1) for at in (asked if isinstance(asked, (list, tuple)) else [asked])]
