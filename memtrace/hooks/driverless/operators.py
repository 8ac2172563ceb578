"""CUDA's kernels for operators whose results hang on data: exact where the data is known, else the most that can be.

Only these operators are replaced, below autograd, so that every other call of torch costs what it costs. The bounds
are those of a prediction on meta tensors.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch

from memtrace.hooks.driverless.known_data import Known, KnownData
from memtrace.hooks.fake.events.assumptions import Assumptions
from memtrace.hooks.fake.tensors.largest_results import LargestResults
from memtrace.hooks.fake.tensors.reads import Reads

Kernel = Callable[..., Any]


class Operators:
    """Kernels that answer for the data."""

    def __init__(self, data: KnownData, assumptions: Assumptions) -> None:
        self._data = data
        self._assumptions = assumptions
        self._largest = LargestResults(assumptions)
        known: Any = Known(data)
        self._reads = Reads(known, assumptions)
        self._library: Any = None

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
        functional: Any = torch.nn.functional
        functional.one_hot = self._one_hot(functional.one_hot)

    def _replace(self, operator: Any, kernel: Kernel) -> None:
        self._library.impl(operator, kernel, "CUDA")

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
        self._assumptions.value("tensors of the GPU were taken to be equal")
        return True

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


def _onto(device: Any, found: Any) -> Any:
    if isinstance(found, torch.Tensor):
        return found.to(device)
    return tuple(one.to(device) for one in found)
