"""What a program is told where it reads values of the GPU: what is known, what it needs to go on, else a constant."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

import torch

from memtrace.hooks.fake.events.assumptions import TORCH_FOLDER, Assumptions
from memtrace.hooks.fake.events.guards import Guards
from memtrace.hooks.fake.tensors.formulas import NO_ZERO, is_of_a_product
from memtrace.hooks.fake.tensors.known_values import KnownValues

READ = "a value was read from the GPU and taken to be 1, or False for a flag"
FINITE = "numbers of the GPU were taken to be finite"
MOVED = "a tensor was moved to the host and taken to hold ones"

_FAKE_FOLDER = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep
_BETWEEN = (
    _FAKE_FOLDER,
    os.path.join(os.path.dirname(os.path.dirname(_FAKE_FOLDER)), "driverless") + os.sep,
    *(TORCH_FOLDER + name for name in ("_tensor.py", "_ops.py", "overrides.py", f"utils{os.sep}_python_dispatch.py")),
)
"""Files whose frames lie between a read and who decides by it."""


class Reads:
    """Answers reads, and notes what was assumed."""

    def __init__(self, known: KnownValues, assumptions: Assumptions) -> None:
        self.known = known
        self._assumptions = assumptions
        self._guards = Guards()

    def scalar(self, one: Any) -> Any:
        """Return the only element of a fake tensor as a number or a flag."""
        values = self.known.of(one)
        if values is not None:
            if self.known.is_assumed(one):
                self._assumptions.value(FINITE)
            return values.reshape(-1)[0].item() if values.numel() == 1 else values.item()
        if is_of_a_product():
            self._assumptions.value(NO_ZERO)
            return 0
        plain = constant(one.dtype)
        wanted = self._guards.wanted(_reader())
        if wanted is not None and isinstance(plain, bool) and wanted.compared is None:
            self._assumptions.value(wanted.why)
            return wanted.truth
        if wanted is not None and isinstance(plain, (int, float)) and (number := wanted.number(plain)) != plain:
            self._assumptions.value(wanted.why)
            return number
        self._assumptions.value(READ)
        return plain

    def truth(self, one: Any) -> bool:
        """Return whether the only element of a fake tensor is true, as an `if` asks."""
        if self.known.of(one) is None and one.dtype is not torch.bool:
            wanted = self._guards.wanted(_reader())
            if wanted is not None and wanted.compared is None:
                self._assumptions.value(wanted.why)
                return wanted.truth
        return bool(self.scalar(one))

    def equal(self, one: Any, other: Any) -> bool:
        """Return whether tensors of which not all is known are equal: it is assumed, but for a flag, which is read.

        C++ compares a flag with one that is up where it checks something, as `istft` does.
        """
        if one.dtype is torch.bool and not one.dim():
            return bool(self.scalar(one)) == bool(self.scalar(other))
        self._assumptions.value("tensors of the GPU were taken to be equal")
        return True

    def take(self, one: Any, make: Callable[[], Any]) -> None:
        """Keep the values of a fake tensor that was made of data, if the same can be made on the host."""
        self.known.take(one, make)

    def tensor(self, one: Any) -> Any:
        """Return a fake tensor's values as a tensor of the host, and ones where they are not known."""
        values = self.known.of(one)
        if values is not None:
            return values.clone()
        self._assumptions.value(MOVED)
        return torch.ones(one.shape, dtype=one.dtype)


def _reader() -> FrameType | None:
    frame: FrameType | None = sys._getframe(2)
    while frame is not None and frame.f_code.co_filename.startswith(_BETWEEN):
        frame = frame.f_back
    return frame


def constant(dtype: torch.dtype) -> Any:
    """Return what stands for a value that nobody computed: no loss is finite and zero at once, no flag is up."""
    if dtype is torch.bool:
        return False
    return 1.0 if dtype.is_floating_point else complex(1.0) if dtype.is_complex else 1
