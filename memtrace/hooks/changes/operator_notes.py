"""What each operator of a training forward takes in time and gives back, for a choice of results that are kept.

A prediction tells of each operator anyway. Where a program really runs, a mode of torch's dispatcher has to see them,
which takes time of its own: that is a run apart, whose other figures are not used.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from time import time_ns
from typing import Any

from memtrace.hooks.changes.arguments import tensors_of
from memtrace.hooks.changes.kept_results import can_be_kept, name_of

_MOST = 200_000


class OperatorNotes:
    """Rows of operators: name, when it had run, seconds, storages of its results, and whether they can be kept."""

    def __init__(self, torch: Any, addresses: Callable[[list[Any]], list[int]]) -> None:
        """`addresses` gives the storages of tensors."""
        self._torch = torch
        self._addresses = addresses
        self._rows: list[list[Any]] = []
        self._made: dict[int, int] = {}

    def add(self, operator: Any, args: Any, kwargs: Any, out: Any, seconds: float) -> None:
        """Take note of an operator that has run, and that what it wrote into is no longer what another gave."""
        tensor = self._torch.Tensor
        for address in self._addresses(list(tensors_of(list(_written(operator, args, kwargs)), tensor))):
            if (row := self._made.pop(address, None)) is not None:
                self._rows[row][4] = False
        results = list(tensors_of(out, tensor))
        if not results or len(self._rows) >= _MOST:
            return
        addresses = self._addresses(results)
        can_be = can_be_kept(self._torch, operator, args, kwargs)
        if can_be:
            self._made.update(dict.fromkeys(addresses, len(self._rows)))
        self._rows.append([name_of(operator), time_ns(), seconds, addresses, can_be])

    def rows(self) -> list[list[Any]]:
        """Return what is known, in the order in which operators ran."""
        return self._rows

    def watching(self, seconds: Callable[[], float]) -> AbstractContextManager[Any]:
        """Return a context in which each operator that really runs is taken note of."""
        from torch.utils._python_dispatch import TorchDispatchMode

        add = self.add

        def watch(_mode: Any, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            before = seconds()
            out = func(*args, **(kwargs or {}))
            add(func, args, kwargs or {}, out, seconds() - before)
            return out

        mode: AbstractContextManager[Any] = type("Watching", (TorchDispatchMode,), {"__torch_dispatch__": watch})()
        return mode


def _written(operator: Any, args: Any, kwargs: Any) -> Iterator[Any]:
    """Yield what an operator writes into, of what it is given."""
    # One of a higher order has no schema.
    schema = getattr(operator, "_schema", None)
    for at, argument in enumerate(() if schema is None else schema.arguments):
        if argument.alias_info is not None and argument.alias_info.is_write:
            yield args[at] if at < len(args) else kwargs.get(argument.name)
