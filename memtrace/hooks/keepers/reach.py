"""From the program's variables to its tensors: the shortest way to each storage that nobody owns.

In: roots, each a table of variables with what it belongs to. Out: chains of objects, from a variable to a tensor. The
search goes level by level and ends at a number of objects, or at a time: what is kept is kept near a variable.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from time import thread_time_ns
from types import FrameType
from typing import Any, NamedTuple

from memtrace.hooks.keepers.edges import SIZED, Edges, Follow

_MAX_OBJECTS = 60_000
_CHECK_EVERY = 256


class Root(NamedTuple):
    """A table of variables: of a call, or of a module."""

    variables: dict[str, Any]
    """Name and value of each."""
    frame: FrameType | None
    """The call, if it is one that runs."""
    name: str
    """What it is called: the function, or the module."""


class Chain(NamedTuple):
    """How a tensor is reached."""

    root: Root
    """Where the search began."""
    variable: str
    """The variable that leads to it."""
    objects: list[Any]
    """From the value of the variable to the tensor itself."""


class Reach:
    """One search. Nothing of it may outlive the moment: it holds what it has seen."""

    def __init__(self, edges: Edges, tensor_class: type, *, until_ns: int) -> None:
        self._edges = edges
        self._tensor_class = tensor_class
        self._until_ns = until_ns
        self._objects: list[Any] = []
        self._follows: list[Follow] = []
        self._parents: list[int] = []
        self._roots: list[tuple[Root, str]] = []
        self._seen: set[int] = set()
        self._tensors: list[int] = []
        self.is_whole = True
        """Whether nothing was left out for want of time."""

    def run(self, roots: Iterable[Root]) -> None:
        """Search from all roots; an object belongs to the first that is near it."""
        for root in roots:
            self._seen.add(id(root.variables))
            for name, value in list(root.variables.items()):
                follow = self._edges[type(value)]
                if follow is None or (name.startswith("__") and name.endswith("__")) or id(value) in self._seen:
                    continue
                self._seen.add(id(value))
                self._add(value, follow, -1 - len(self._roots))
                self._roots.append((root, name))
        self._follow()

    def chains(self, wanted: Callable[[Any], bool]) -> Iterator[Chain]:
        """Yield the chain to each tensor that is wanted, those nearest to a variable first."""
        for at in self._tensors:
            if wanted(self._objects[at]):
                yield self._chain(at)

    def _follow(self) -> None:
        # Here is where a search spends its time: per reference two look-ups in tables, and no call.
        objects, edges, seen = self._objects, self._edges, self._seen
        at = 0
        while at < len(objects):
            if at % _CHECK_EVERY == 0 and (len(objects) > _MAX_OBJECTS or thread_time_ns() > self._until_ns):
                self.is_whole = False
                return
            for child in self._follows[at](objects[at]):
                kind = type(child)
                follow = edges[kind]
                if follow is None or (kind in SIZED and not child):
                    continue
                key = id(child)
                if key not in seen:
                    seen.add(key)
                    self._add(child, follow, at)
            at += 1

    def _add(self, value: Any, follow: Follow, parent: int) -> None:
        if issubclass(type(value), self._tensor_class):
            self._tensors.append(len(self._objects))
        self._objects.append(value)
        self._follows.append(follow)
        self._parents.append(parent)

    def _chain(self, at: int) -> Chain:
        objects = []
        while at >= 0:
            objects.append(self._objects[at])
            at = self._parents[at]
        root, variable = self._roots[-1 - at]
        return Chain(root, variable, objects[::-1])
