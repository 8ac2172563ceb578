"""Functions that callbacks are woven into by the tests, in a module that imports torch as those of torch do."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import torch

NUM_CALLS = 0


def of_all_kinds(one: int, /, two: int, *rest: int, four: int, **more: int) -> list[Any]:
    """Return what it is given, and count the call."""
    global NUM_CALLS
    NUM_CALLS += 1
    return [one, two, rest, four, more]


def double(given: torch.Tensor) -> torch.Tensor:
    """Return twice a tensor."""
    return given * 2


def yields() -> Iterator[int]:
    """Yield a number."""
    yield 1


def deletes_its_argument(given: list[int]) -> int:
    """Drop what it is given before it returns."""
    total = sum(given)
    del given
    return total


def adder(number: int) -> Callable[[int], int]:
    """Return a function that adds a number."""

    def add(other: int) -> int:
        """Add."""
        return number + other

    return add


class Holder:
    """Has methods."""

    __told = "private of Holder"

    def half(self, number: int) -> int:
        """Return half a number; warn of the line that called, and raise of an odd one."""
        warnings.warn("of the caller", stacklevel=2)
        for divisor in (2,):
            if number % divisor:
                raise ValueError("odd")
            return number // divisor
        return 0

    def depth(self) -> int:
        """Return how many frames there are."""
        frame, number = sys._getframe(), 0
        while frame is not None:
            frame, number = frame.f_back, number + 1  # type: ignore[assignment]
        return number

    def tell(self) -> str:
        """Return what only this class can name."""
        return self.__told


class Child(Holder):
    """Calls the method of its parent."""

    def tell(self) -> str:
        """Return what the parent tells."""
        return super().tell()
