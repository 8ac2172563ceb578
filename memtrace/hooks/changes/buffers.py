"""Buffers that a forward writes into, such as the running statistics of a batch norm: once, however often it runs.

A module that runs again in backward is given copies of what its buffers held before the first run, so that it computes
the same (a spectral norm goes on from its vectors), and the buffers stay as the first run left them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from memtrace.hooks.ownership.module_tree import modules_in

_Place = tuple[Any, str]
"""A module and the name of its buffer."""


class Buffers:
    """The buffers of one region, and which of them its forwards have been seen to write."""

    def __init__(self, region: Any) -> None:
        self._region = region
        self._written: set[tuple[int, str]] | None = None

    def before(self) -> list[tuple[_Place, Any]]:
        """Return copies of what a forward will write into: of all buffers the first time, then of those that it did."""
        written = self._written
        return [
            (place, _copy(buffer))
            for place, buffer in _places(self._region)
            if written is None or (id(place[0]), place[1]) in written
        ]

    def versions(self) -> dict[tuple[int, str], tuple[int, int]]:
        """Return identity and version of each buffer."""
        return {
            (id(module), name): (id(buffer), int(buffer._version)) for (module, name), buffer in _places(self._region)
        }

    def note(self, before: dict[tuple[int, str], tuple[int, int]], kept: list[tuple[_Place, Any]]) -> list[Any]:
        """Take note of what a forward wrote, and return the copies that are needed to run it again."""
        written = {key for key, version in self.versions().items() if before.get(key) != version}
        if self._written is None:
            # A batch norm writes its statistics without counting versions: the first time, values are compared.
            written |= {(id(module), name) for (module, name), copy in kept if _differs(module, name, copy)}
        self._written = written = written | (self._written or set())
        return [(place, copy) for place, copy in kept if (id(place[0]), place[1]) in written]

    @contextmanager
    def as_before(self, kept: list[tuple[_Place, Any]]) -> Iterator[None]:
        """Within this, the buffers that were written are copies of what they were."""
        held = [(module, name, module._buffers.get(name)) for (module, name), _ in kept]
        for (module, name), copy in kept:
            module._buffers[name] = _copy(copy)
        try:
            yield
        finally:
            for module, name, buffer in held:
                module._buffers[name] = buffer


def _places(region: Any) -> Iterator[tuple[_Place, Any]]:
    for _, module in modules_in(region):
        for name, buffer in module._buffers.items():
            if buffer is not None:
                yield (module, name), buffer


def _differs(module: Any, name: str, copy: Any) -> bool:
    # Without data, as in a prediction, nothing differs: what is named like statistics counts as written.
    return name.startswith("running_") or not bool(module._buffers[name].equal(copy))


def _copy(buffer: Any) -> Any:
    return buffer.detach().clone()
