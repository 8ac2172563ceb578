"""Optimizer steps that torch's compiler has made part of a graph, where no hook of an optimizer runs.

In: the optimizers, where a backward pass has ended and where the program goes on, and those whose `step` the compiler
has read. Out: those of them that stepped in between, told by what they wrote: the version of a tensor counts what was
written into it, by compiled code as well. Of others that says nothing: a program may write into its weights (SAM,
weight clipping) and step later.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

_NUM_LOOKED_AT = 8
"""So many parameters of an optimizer say whether it stepped: it writes all that have a gradient."""

_Versions = list[tuple["weakref.ref[Any]", int]]


class CompiledSteps:
    """Notices the steps of optimizers whose hooks did not run. Optimizers are known by `id`."""

    def __init__(self) -> None:
        self.are_possible = False
        """Whether the program compiles anything."""
        self._compiled: set[int] = set()
        self._before: dict[int, _Versions] = {}

    def compiled(self, optimizer: int) -> None:
        """Note that the compiler reads the `step` of an optimizer."""
        self._compiled.add(optimizer)

    def seen(self, optimizer: int) -> None:
        """Note that the hooks of an optimizer ran: this step of it is told by them."""
        self._before.pop(optimizer, None)

    def gone(self, optimizer: int) -> None:
        """Note that an optimizer was freed."""
        self._compiled.discard(optimizer)
        self._before.pop(optimizer, None)

    def backward_ended(self, optimizers: Iterable[Any]) -> None:
        """Remember, of each optimizer, the versions of some parameters before its next step."""
        for one in optimizers if self.are_possible else ():
            if id(one) not in self._before:
                versions = [(weakref.ref(each), each._version) for each in islice(_with_gradient(one), _NUM_LOOKED_AT)]
                if versions:
                    self._before[id(one)] = versions

    def take(self, optimizers: Iterable[Any]) -> list[Any]:
        """Return the optimizers that have stepped unseen since then, each once."""
        if not self._before or not self._compiled:
            return []
        stepped = [
            one for one in optimizers if id(one) in self._compiled and _are_written(self._before.get(id(one), []))
        ]
        for one in stepped:
            del self._before[id(one)]
        return stepped


def _with_gradient(optimizer: Any) -> Iterator[Any]:
    for group in optimizer.param_groups:
        for one in group["params"]:
            # Of what is no leaf, `.grad` warns on stderr; what is made in inference mode has no version.
            if one.is_leaf and one.grad is not None and not one.is_inference():
                yield one


def _are_written(versions: _Versions) -> bool:
    """Return whether all that are left of these parameters were written since."""
    now = [(parameter, before) for reference, before in versions if (parameter := reference()) is not None]
    return bool(now) and all(parameter._version != before for parameter, before in now)
