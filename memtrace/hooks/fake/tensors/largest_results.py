"""Results whose shape only data tells, of which nobody knows the data: the largest that is possible, and counted.

Both engines of a prediction answer so, with tensors like the ones they were given: on meta, or on torch's own CUDA.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from memtrace.hooks.fake.events.assumptions import Assumptions
from memtrace.hooks.fake.tensors.formulas import NO_ZERO, is_of_a_product

_aten = torch.ops.aten
_NUM_VALUES = {torch.uint8: 256, torch.int8: 128}
"""Non-negative values of a short type: as many bins it can fill."""

Answer = Callable[..., Any]


class LargestResults:
    """The largest result of each operator, noted with the bytes by which it may be too much.

    Where no largest shape follows from the arguments, the program is ended with a sentence that says what would
    tell it.
    """

    def __init__(self, assumptions: Assumptions) -> None:
        """Note in `assumptions` what is taken to be so."""
        self._assumptions = assumptions

    def by_operator(self) -> dict[Any, Answer]:
        """Return what to call in the place of each operator."""
        return {
            _aten.nonzero.default: self._nonzero,
            _aten.masked_select.default: self._masked_select,
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
        }

    def _made(self, name: str, *tensors: Any, exact: bool = False) -> Any:
        if not exact:
            self._assumptions.bound(name, sum(one.numel() * one.element_size() for one in tensors))
        return tensors[0] if len(tensors) == 1 else tensors

    def _nonzero(self, one: Any) -> Any:
        if is_of_a_product():
            self._assumptions.value(NO_ZERO)
            return one.new_empty((0, one.dim()), dtype=torch.int64)
        return self._made("nonzero", one.new_empty((one.numel(), one.dim()), dtype=torch.int64))

    def _masked_select(self, one: Any, mask: Any) -> Any:
        return self._made("masked_select", one.new_empty(torch.broadcast_shapes(one.shape, mask.shape).numel()))

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
