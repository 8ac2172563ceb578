"""Operators whose results have the shape that the data says: the largest that is possible is assumed, and counted.

Where no largest shape follows from the arguments, the program is ended with a sentence that says what would tell it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from memtrace.hooks.fake.events.assumptions import Assumptions
from memtrace.hooks.fake.events.storages import CUDA, FakeMemory
from memtrace.hooks.fake.tensors.known_values import KnownValues

_aten = torch.ops.aten
_MASKS = (torch.bool, torch.uint8)
_NUM_VALUES = {torch.uint8: 256, torch.int8: 128}
"""Non-negative values of a short type: as many bins it can fill."""

Answer = Callable[..., Any]


class Bounds:
    """Answers for these operators, of meta tensors."""

    def __init__(self, memory: FakeMemory, assumptions: Assumptions, known: KnownValues) -> None:
        self._memory = memory
        self._known = known
        self._assumptions = assumptions

    def answers(self) -> dict[Any, Answer]:
        """Return what to call in the place of each operator."""
        return {
            **{func: self._exact_or(func, bound) for func, bound in self._pure().items()},
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

    def _pure(self) -> dict[Any, Answer]:
        """Return the same for operators that write into nothing."""
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
        }

    def _exact_or(self, func: Any, bound: Answer) -> Answer:
        """Return what answers with the very shapes where all values are known, and with a bound elsewhere."""

        def answer(*args: Any, **kwargs: Any) -> Any:
            found = self._known.answer(func, args, kwargs)
            return bound(*args, **kwargs) if found is None else _shapes(found)

        return answer

    def one_hot(self, one: Any, num_classes: int = -1) -> Any:
        """Return `one_hot`, whose number of classes must be given: else it is the largest value."""
        if one.is_meta and num_classes == -1 and (values := self._known.of(one)) is not None:
            num_classes = int(values.max()) + 1
        if one.is_meta and num_classes == -1:
            self._assumptions.refuse(
                "one_hot without num_classes has as many columns as the data says; give num_classes"
            )
        return torch.nn.functional.one_hot(one, num_classes)

    def _made(self, name: str, *tensors: Any, exact: bool = False) -> Any:
        if exact:
            return tensors[0] if len(tensors) == 1 else tensors
        self._assumptions.bound(name, sum(one.numel() * one.element_size() for one in tensors))
        return tensors[0] if len(tensors) == 1 else tensors

    def _nonzero(self, one: Any) -> Any:
        return self._made("nonzero", self._found(one))

    def _masked_select(self, one: Any, mask: Any) -> Any:
        shape = torch.broadcast_shapes(one.shape, mask.shape)
        flags = self._known.of(mask)
        size = shape.numel() if flags is None else int(flags.expand(shape).count_nonzero())
        return self._made("masked_select", one.new_empty(size), exact=flags is not None)

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
        exact = self._knows_flags(indices)
        indices, masks = self._without_masks(one, indices)
        out = func(one, indices)
        if masks:
            self._made("an index of flags", out, *masks, exact=exact)
        return out

    def _put(self, func: Any, one: Any, indices: Any, values: Any, *rest: Any, **named: Any) -> Any:
        has_one_mask = len(indices) == 1 and indices[0] is not None and indices[0].dtype in _MASKS
        if has_one_mask and values.numel() == 1 and not (rest and rest[0]):
            # CUDA fills through the mask itself (`canDispatchToMaskedFill`).
            return func(one, indices, values, *rest, **named)
        exact = self._knows_flags(indices)
        indices, masks = self._without_masks(one, indices)
        out = func(one, indices, values, *rest, **named)
        if masks:
            self._made("an index of flags", *masks, exact=exact)
        return out

    def _knows_flags(self, indices: Any) -> bool:
        return all(self._known.of(one) is not None for one in indices if one is not None and one.dtype in _MASKS)

    def _without_masks(self, one: Any, indices: Any) -> tuple[list[Any], list[Any]]:
        """Return indices with numbers in the place of flags, and what holds those numbers, which C++ takes as well."""
        found: list[Any] = []
        masks: list[Any] = []
        kind = self._memory.kind_of(one) or CUDA
        for index in indices:
            if index is None or index.dtype not in _MASKS:
                found.append(index)
                continue
            numbers = self._found(index)
            self._memory.adopt(numbers, kind)
            masks.append(numbers)
            found += numbers.unbind(1)
        return found, masks

    def _found(self, flags: Any) -> Any:
        values = self._known.of(flags)
        most = flags.numel() if values is None else int(values.count_nonzero())
        return flags.new_empty((most, flags.dim()), dtype=torch.int64)


def _shapes(found: Any) -> Any:
    """Return fake tensors in the place of tensors of the host."""
    if isinstance(found, torch.Tensor):
        return torch.empty(found.shape, dtype=found.dtype, device="meta")
    return type(found)(_shapes(one) for one in found) if isinstance(found, (list, tuple)) else found
