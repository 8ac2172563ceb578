"""Operators whose results have the shape that the data says: the largest that is possible is assumed, and counted.

Where no largest shape follows from the arguments, the program is ended with a sentence that says what would tell it.
"""

from __future__ import annotations

from typing import Any

import torch

from memtrace.hooks.fake.events.assumptions import Assumptions
from memtrace.hooks.fake.events.storages import CUDA, FakeMemory
from memtrace.hooks.fake.tensors.known_values import KnownValues
from memtrace.hooks.fake.tensors.largest_results import Answer, LargestResults

_aten = torch.ops.aten
_MASKS = (torch.bool, torch.uint8)


class Bounds(LargestResults):
    """Answers for these operators, of meta tensors."""

    def __init__(self, memory: FakeMemory, assumptions: Assumptions, known: KnownValues) -> None:
        super().__init__(assumptions)
        self._memory = memory
        self._known = known

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
            **self.by_operator(),
            _aten._unique.default: lambda one, _sorted=True, inverse=False: self._unique(one, inverse)[:2],
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

    def _nonzero(self, one: Any) -> Any:
        return self._made("nonzero", self._found(one))

    def _masked_select(self, one: Any, mask: Any) -> Any:
        shape = torch.broadcast_shapes(one.shape, mask.shape)
        flags = self._known.of(mask)
        size = shape.numel() if flags is None else int(flags.expand(shape).count_nonzero())
        return self._made("masked_select", one.new_empty(size), exact=flags is not None)

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
