"""Operators whose results have the shape that the data says: the largest that is possible is assumed, and counted.

Where no largest shape follows from the arguments, the program is ended with a sentence that says what would tell it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from memtrace.hooks.fake.events.assumptions import Assumptions
from memtrace.hooks.fake.events.storages import CUDA, FakeMemory

_aten = torch.ops.aten
_MASKS = (torch.bool, torch.uint8)
_NUM_VALUES = {torch.uint8: 256, torch.int8: 128}
"""Non-negative values of a short type: as many bins it can fill."""

Answer = Callable[..., Any]


class Bounds:
    """Answers for these operators, of meta tensors."""

    def __init__(self, memory: FakeMemory, assumptions: Assumptions) -> None:
        self._memory = memory
        self._assumptions = assumptions

    def answers(self) -> dict[Any, Answer]:
        """Return what to call in the place of each operator."""
        return {
            _aten.nonzero.default: self._nonzero,
            _aten.masked_select.default: self._masked_select,
            _aten._unique.default: lambda one, _sorted=True, inverse=False: self._unique(one, inverse)[:2],
            _aten._unique2.default: lambda one, _sorted=True, inverse=False, counts=False: self._unique(
                one, inverse, counts
            ),
            _aten.unique_dim.default: lambda one, dim, _sorted=True, inverse=False, counts=False: self._unique(
                one, inverse, counts, dim
            ),
            _aten.unique_consecutive.default: lambda one, inverse=False, counts=False, dim=None: self._unique(
                one, inverse, counts, dim
            ),
            _aten.bincount.default: self._bincount,
            _aten.repeat_interleave.Tensor: self._repeat_interleave,
            _aten.index.Tensor: lambda one, indices: self._indexed(_aten.index.Tensor, one, indices),
            _aten._index_put_impl_.default: lambda one, indices, *rest, **named: self._put(
                _aten._index_put_impl_.default, one, indices, *rest, **named
            ),
            _aten.index_put.default: lambda one, indices, *rest, **named: self._put(
                _aten.index_put.default, one, indices, *rest, **named
            ),
            _aten.index_put_.default: lambda one, indices, *rest, **named: self._put(
                _aten.index_put_.default, one, indices, *rest, **named
            ),
        }

    def one_hot(self, one: Any, num_classes: int = -1) -> Any:
        """Return `one_hot`, whose number of classes must be given: else it is the largest value."""
        if one.is_meta and num_classes == -1:
            self._assumptions.refuse(
                "one_hot without num_classes has as many columns as the data says; give num_classes"
            )
        return torch.nn.functional.one_hot(one, num_classes)

    def _made(self, name: str, *tensors: Any) -> Any:
        self._assumptions.bound(name, sum(one.numel() * one.element_size() for one in tensors))
        return tensors[0] if len(tensors) == 1 else tensors

    def _nonzero(self, one: Any) -> Any:
        return self._made("nonzero", _found(one))

    def _masked_select(self, one: Any, mask: Any) -> Any:
        size = torch.broadcast_shapes(one.shape, mask.shape).numel()
        return self._made("masked_select", one.new_empty(size))

    def _unique(self, one: Any, inverse: bool = False, counts: bool = False, dim: int | None = None) -> Any:
        places = one.shape if dim is None else (one.shape[dim],)
        most = torch.Size(places).numel()
        values = one.new_empty(one.shape if dim is not None else most)
        indices = one.new_empty(places if inverse else 0, dtype=torch.int64)
        return self._made("unique", values, indices, one.new_empty(most if counts else 0, dtype=torch.int64))

    def _bincount(self, one: Any, weights: Any = None, minlength: int = 0) -> Any:
        dtype = torch.int64
        if weights is not None:
            dtype = torch.float32 if weights.dtype is torch.float32 else torch.float64
        most = _NUM_VALUES.get(one.dtype)
        if most is not None:
            return self._made("bincount", one.new_empty(max(most, minlength), dtype=dtype))
        if not minlength:
            self._assumptions.refuse("the result of bincount is as long as the data says; give minlength")
        self._assumptions.value("bincount was taken to find no value above its minlength")
        return one.new_empty(minlength, dtype=dtype)

    def _repeat_interleave(self, repeats: Any, *, output_size: int | None = None) -> Any:
        if output_size is None:
            self._assumptions.refuse(
                "the result of repeat_interleave with repeats of the GPU is as long as the data says; give output_size"
            )
        return repeats.new_empty(output_size, dtype=torch.int64)

    def _indexed(self, func: Any, one: Any, indices: Any) -> Any:
        indices, masks = self._without_masks(one, indices)
        out = func(one, indices)
        if masks:
            self._made("an index of flags", out, *masks)
        return out

    def _put(self, func: Any, one: Any, indices: Any, values: Any, *rest: Any, **named: Any) -> Any:
        has_one_mask = len(indices) == 1 and indices[0] is not None and indices[0].dtype in _MASKS
        if has_one_mask and values.numel() == 1 and not (rest and rest[0]):
            # CUDA fills through the mask itself (`canDispatchToMaskedFill`).
            return func(one, indices, values, *rest, **named)
        indices, masks = self._without_masks(one, indices)
        out = func(one, indices, values, *rest, **named)
        if masks:
            self._made("an index of flags", *masks)
        return out

    def _without_masks(self, one: Any, indices: Any) -> tuple[list[Any], list[Any]]:
        """Return indices with numbers in the place of flags, and what holds those numbers, which C++ takes as well."""
        found: list[Any] = []
        masks: list[Any] = []
        kind = self._memory.kind_of(one) or CUDA
        for index in indices:
            if index is None or index.dtype not in _MASKS:
                found.append(index)
                continue
            numbers = _found(index)
            self._memory.adopt(numbers, kind)
            masks.append(numbers)
            found += numbers.unbind(1)
        return found, masks


def _found(one: Any) -> Any:
    return one.new_empty((one.numel(), one.dim()), dtype=torch.int64)
