"""CUDA's kernels for operators whose results hang on data: exact where the data is known, else the most that can be.

Only these operators are replaced, below autograd, so that every other call of torch costs what it costs. The bounds
are those of a prediction on meta tensors.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch

from memtrace.hooks.driverless.convolutions import followed_convolutions
from memtrace.hooks.driverless.followed import (
    FOLLOWED,
    is_countable,
    is_known_filled,
    original,
    takes_two_tensors,
    without_numbers,
)
from memtrace.hooks.driverless.known_data import Known, KnownData
from memtrace.hooks.fake.events.assumptions import Assumptions
from memtrace.hooks.fake.kernels.convolutions import Convolutions
from memtrace.hooks.fake.tensors.deciding_flags import decided
from memtrace.hooks.fake.tensors.formulas import IN_RANGE
from memtrace.hooks.fake.tensors.largest_results import LargestResults
from memtrace.hooks.fake.tensors.reads import MOVED, Reads

Kernel = Callable[..., Any]
_READ_BYTES = 1 << 20
"""Largest copy onto the host that may be read for its values."""


class Operators:
    """Kernels that answer for the data."""

    def __init__(self, data: KnownData, assumptions: Assumptions) -> None:
        self._data = data
        self._assumptions = assumptions
        self._largest = LargestResults(assumptions)
        known: Any = Known(data)
        self._reads = Reads(known, assumptions)
        self._library: Any = None
        self.convolutions: Convolutions | None = None
        """Those of the program, once this is in place."""

    def install(self) -> None:
        """Put them in the place of CUDA's, for the rest of the process."""
        self._library = torch.library.Library("aten", "IMPL")
        with warnings.catch_warnings():
            # torch says of each that it is replaced: that is what is meant.
            warnings.simplefilter("ignore")
            for operator, bound in self._largest.by_operator().items():
                self._replace(operator, self._exact_or(operator, bound))
            self._replace("_local_scalar_dense", self._scalar)
            self._replace("equal", self._equal)
            for name in ("Tensor_Tensor", "float_Tensor"):
                self._replace(f"normal.{name}", self._normal)
            self._follow()
            self.convolutions = followed_convolutions(self._with_keys)
        functional: Any = torch.nn.functional
        functional.one_hot = self._one_hot(functional.one_hot)

    def _replace(self, operator: Any, kernel: Kernel, *, with_keys: bool = False) -> None:
        self._library.impl(operator, kernel, "CUDA", with_keyset=with_keys)

    def _with_keys(self, operator: str, kernel: Kernel) -> None:
        self._replace(operator, kernel, with_keys=True)

    def _follow(self) -> None:
        """Let copies be known, and what operators make of what is known."""
        copy, fill = original("copy_"), original("fill_.Scalar")
        if copy is None or fill is None:
            return
        self._replace("copy_", self._copying(copy), with_keys=True)
        self._replace("fill_.Scalar", self._filling(fill), with_keys=True)
        arange = original("arange.start_out")
        if arange is not None:
            self._replace("arange.start_out", self._counting(arange), with_keys=True)
        join = original("cat")
        if join is not None:
            self._replace("cat", self._joining(join), with_keys=True)
        for name in FOLLOWED:
            kernel = original(name)
            if kernel is not None:
                operator, _, overload = name.partition(".")
                found = getattr(getattr(torch.ops.aten, operator), overload or "default")
                self._replace(name, self._computing(found, kernel), with_keys=True)

    def _copying(self, kernel: Kernel) -> Kernel:
        """Return a copy that keeps what is known of it; onto the host come ones where nobody knows."""
        followed = self._data.followed

        def copy(keys: Any, target: Any, source: Any, non_blocking: bool = False) -> Any:
            if target.is_cuda:
                kernel(keys, target, source, non_blocking)
                if is_countable(target):
                    values = self._data.on_host(source) if source.is_cuda else source
                    followed.forget(target) if values is None else followed.keep(target, values)
                return target
            values = self._data.on_host(source) if source.numel() else None
            kernel(keys, target, source, non_blocking)
            if values is not None:
                target.copy_(values)
            elif 0 < source.numel() * source.element_size() <= _READ_BYTES and not _is_parameter(source):
                self._assumptions.value(MOVED)
                target.fill_(1)
            return target

        return copy

    def _filling(self, kernel: Kernel) -> Kernel:
        def fill(keys: Any, one: Any, number: Any) -> Any:
            kernel(keys, one, number)
            if is_known_filled(one):
                self._data.followed.keep(one, torch.full((), number, dtype=one.dtype).expand(one.shape))
            return one

        return fill

    def _counting(self, kernel: Kernel) -> Kernel:
        def count(keys: Any, start: Any, end: Any, step: Any = 1, *, out: Any) -> Any:
            kernel(keys, start, end, step, out=out)
            if is_countable(out):
                self._data.followed.keep(out, torch.arange(start, end, step, dtype=out.dtype))
            return out

        return count

    def _computing(self, operator: Any, kernel: Kernel) -> Kernel:
        """Return a kernel that computes on the host if it knows every tensor, and else is CUDA's own."""

        of_tensors = takes_two_tensors(operator)

        def compute(keys: Any, *args: Any, **kwargs: Any) -> Any:
            if of_tensors:
                args = without_numbers(args)
            # Nearly every call is of floating numbers.
            if args[0].dtype.is_floating_point or not all(map(is_countable, args)):
                return kernel(keys, *args, **kwargs)
            known = self._on_host((*args, *kwargs.values()))
            if known is None or torch.cuda.is_current_stream_capturing():
                return self._decided(operator, args, kernel(keys, *args, **kwargs))
            device = next(one.device for one in args if isinstance(one, torch.Tensor) and one.is_cuda)
            return _onto(device, operator(*known[: len(args)], **dict(zip(kwargs, known[len(args) :], strict=True))))

        return compute

    def _joining(self, kernel: Kernel) -> Kernel:
        """Return a `cat` that joins on the host what is known, as `diff` does with the positions of a batch."""

        def join(keys: Any, tensors: Any, dim: int = 0) -> Any:
            if any(one.dtype.is_floating_point for one in tensors) or not all(map(is_countable, tensors)):
                return kernel(keys, tensors, dim)
            known = self._on_host(tensors)
            if known is None or torch.cuda.is_current_stream_capturing():
                return kernel(keys, tensors, dim)
            return _onto(tensors[0].device, torch.cat(known, dim))

        return join

    def _decided(self, operator: Any, args: Any, out: Any) -> Any:
        """Keep what numbers that are known make of some that are not, of a result."""
        if not isinstance(out, torch.Tensor) or len(args) != 2:
            return out
        operands = [self._data.on_host(one) if one.is_cuda else one for one in args if isinstance(one, torch.Tensor)]
        number = decided(operator, operands, out.dtype)
        if number is not None:
            self._data.followed.keep(out, torch.full((), number, dtype=out.dtype).expand(out.shape))
        return out

    def _exact_or(self, operator: Any, bound: Kernel) -> Kernel:
        """Return a kernel that computes on the host if it knows every tensor, and else gives the bound."""

        def kernel(*args: Any, **kwargs: Any) -> Any:
            self._assumptions.check()
            known = self._on_host((*args, *kwargs.values()))
            if known is None:
                return bound(*args, **kwargs)
            found = operator(*known[: len(args)], **dict(zip(kwargs, known[len(args) :], strict=True)))
            return _onto(args[0].device, found)

        return kernel

    def _on_host(self, values: Sequence[Any]) -> list[Any] | None:
        """Return arguments with each tensor as its values on the host; `None` where those of one are not known."""
        found = []
        for one in values:
            is_elsewhere = isinstance(one, torch.Tensor) and one.device.type != "cpu"
            known = self._data.on_host(one) if is_elsewhere else one
            if is_elsewhere and known is None:
                return None
            found.append(known)
        return found

    def _scalar(self, one: Any) -> Any:
        self._assumptions.check()
        return self._reads.scalar(one)

    def _equal(self, one: Any, other: Any) -> bool:
        if one.shape != other.shape:
            return False
        known = self._data.on_host(one), self._data.on_host(other)
        if known[0] is not None and known[1] is not None:
            return bool(torch.equal(*known))
        return self._reads.equal(one, other)

    def _normal(self, mean: Any, std: Any, generator: Any = None) -> Any:
        """Draw as `DistributionTemplates.h` does; the check that no deviation is negative is taken to pass."""
        self._assumptions.value(IN_RANGE)
        if std.numel():
            std.min().ge(0)
        shape = torch.broadcast_shapes(mean.shape, std.shape) if isinstance(mean, torch.Tensor) else std.shape
        return std.new_empty(shape).normal_(0, 1, generator=generator).mul_(std).add_(mean)

    def _one_hot(self, original: Kernel) -> Kernel:
        def one_hot(tensor: Any, num_classes: int = -1) -> Any:
            if num_classes == -1 and tensor.is_cuda:
                known = self._data.on_host(tensor)
                if known is None:
                    self._assumptions.refuse(
                        "one_hot without num_classes has as many columns as the data says; give num_classes"
                    )
                num_classes = int(known.max()) + 1
            return original(tensor, num_classes)

        return one_hot


def _is_parameter(one: Any) -> bool:
    """Return whether a tensor is trained, so that whoever copies it wants to save it."""
    return bool(one.requires_grad and one.is_leaf)


def _onto(device: Any, found: Any) -> Any:
    if isinstance(found, torch.Tensor):
        return found.to(device)
    return tuple(one.to(device) for one in found)
