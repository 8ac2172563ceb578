"""What no variable leads to: from a tensor back to what refers to it, by the garbage collector's own tables.

Each level is a pass over all objects, some fifty milliseconds: only a few tensors are asked about, each for all alike.
A chain that ends where C++ begins, in memtrace or in the interpreter is no answer.
"""

from __future__ import annotations

import gc
import sys
import weakref
from collections.abc import Iterator
from time import thread_time_ns
from types import FrameType, FunctionType, ModuleType
from typing import Any, NamedTuple

from memtrace.hooks.keepers.edges import CONTAINERS, Edges, attributes_of
from memtrace.hooks.keepers.feeding import Named, feeding_line, methods_of
from memtrace.hooks.keepers.names import NamedChain
from memtrace.hooks.keepers.program_frames import Place
from memtrace.hooks.keepers.reach import Chain, Root

_MAX_LEVELS = 10
_MAX_ANCESTORS = 96
_MAX_WIDTH = 12
_INTERNAL_MODULES = frozenset({"sys", "gc", "builtins", "weakref", "threading", "atexit", "functools", "linecache"})


class Answer(NamedTuple):
    """What keeps a tensor."""

    text: str
    """In words."""
    kind: str
    """context, cycle, or what a chain from a module is."""
    place: Place | None
    """Where the program put it there."""


class Ancestors:
    """What refers to one tensor, and what to that: found by identity, nearest first."""

    def __init__(self, tensor: Any, edges: Edges, *, until_ns: int) -> None:
        self.found: list[Any] = [tensor]
        self._edges = edges
        self._until_ns = until_ns
        self._index = {id(tensor): 0}
        self._towards: list[int] = [-1]
        self.is_closed = False
        """Whether everything that refers to any of them, in Python, is among them."""
        self.roots: list[tuple[ModuleType, int]] = []
        """Modules that a chain begins in, each with the ancestor that is the value of its variable."""

    def path(self, at: int) -> list[Any]:
        """Return the chain from an ancestor down to the tensor."""
        objects = []
        while at >= 0:
            objects.append(self.found[at])
            at = self._towards[at]
        return objects

    def counts_agree(self) -> bool:
        """Return whether nothing but the ancestors refers to any of them: garbage that nobody has collected."""
        # First of all: a variable of this function would count.
        counts, (own,) = _reference_counts(self.found), _reference_counts([object()])
        inner = dict.fromkeys(self._index, 0)
        for held in self.found:
            for one in gc.get_referents(held):
                if id(one) in inner:
                    inner[id(one)] += 1
        # Who asked about the tensor, the first, refers to it as well.
        return all(count - own <= inner[id(held)] for held, count in zip(self.found[1:], counts[1:], strict=True))

    def climb(self) -> None:
        """Find them. Not while it is made: a tuple of Python's refers to what is given to a class that is called."""
        first = 0
        for _level in range(_MAX_LEVELS):
            frontier = self.found[first:]
            if not frontier:
                self.is_closed = not self.roots
                return
            if len(self.found) > _MAX_ANCESTORS or len(frontier) > _MAX_WIDTH or thread_time_ns() > self._until_ns:
                return
            first = len(self.found)
            self._take(_referrers(frontier), frontier, first)
            if self.roots:
                return

    def _take(self, referrers: list[Any], frontier: list[Any], first: int) -> None:
        for one in referrers:
            if one is self.found or one is frontier or one is referrers or id(one) in self._index:
                continue
            if type(one) is FrameType or not self._edges.may_hold(one):
                continue
            target = self._target(one, first - len(frontier), first)
            if target is None:
                continue
            module = _module_of(one)
            if module is not None:
                if module.__name__ not in _INTERNAL_MODULES and not module.__name__.startswith("memtrace."):
                    self.roots.append((module, target))
                continue
            self._index[id(one)] = len(self.found)
            self._towards.append(target)
            self.found.append(one)

    def _target(self, referrer: Any, start: int, end: int) -> int | None:
        known = {id(self.found[at]): at for at in range(start, end)}
        return next((known[id(one)] for one in gc.get_referents(referrer) if id(one) in known), None)


def who_keeps(reference: weakref.ref[Any], edges: Edges, context_class: type, *, until_ns: int) -> Answer | None:
    """Return what keeps a tensor that no variable leads to; nothing where that does not show in Python."""
    tensor = reference()
    if tensor is None:
        return None
    ancestors = Ancestors(tensor, edges, until_ns=until_ns)
    ancestors.climb()
    for module, at in ancestors.roots:
        chain = _chain_of(module, ancestors.path(at))
        if chain is not None:
            named = NamedChain(chain)
            return Answer(f"{named.text()} of the module {module.__name__}", named.kind, None)
    if not ancestors.is_closed:
        return None
    context = next((at for at, one in enumerate(ancestors.found) if issubclass(type(one), context_class)), None)
    if context is not None:
        return _of_context(ancestors.path(context))
    return _of_cycle(ancestors)


def _referrers(objects: list[Any]) -> list[Any]:
    """Return what refers to any of these, without the tuple that Python 3.13 makes of them to ask: it has a mark."""
    mark = object()
    found = gc.get_referrers(*objects, mark)
    return [one for one in found if not (type(one) is tuple and one and one[-1] is mark)]


def _reference_counts(objects: list[Any]) -> list[int]:
    """Return how often each object is referred to, by this list and by looking at it as well."""
    return [sys.getrefcount(one) for one in objects]


def _chain_of(module: ModuleType, objects: list[Any]) -> Chain | None:
    variables = vars(module)
    name = next((key for key, value in list(variables.items()) if value is objects[0]), None)
    return None if name is None else Chain(Root(variables, None, module.__name__), name, objects)


def _of_context(path: list[Any]) -> Answer:
    """Return the answer for a tensor that hangs on the context of an autograd function."""
    context, tensor = path[0], path[-1]
    kind = type(context)
    name = kind.__name__.removesuffix("Backward")
    table = attributes_of(context)
    attribute = next((key for key, value in table.items() if value is path[1] or value is tensor), None)
    if attribute is None and len(path) > 2:
        attribute = next((key for key, value in table.items() if value is path[2]), None)
    forward = getattr(kind, "_forward_cls", None)
    codes = list(methods_of(forward)) if isinstance(forward, type) else []
    place = None if attribute is None else feeding_line(codes, Named("ctx", attribute, False))
    text = f"ctx of {name}" if attribute is None else f"ctx.{attribute} of {name}"
    if getattr(tensor, "grad_fn", None) is context:
        # Its own output: the context keeps the tensor, and the tensor by its graph the context.
        return Answer(f"cycle through {text}", "cycle", place)
    return Answer(text, "context", place)


def _of_cycle(ancestors: Ancestors) -> Answer | None:
    """Return the answer for a tensor that only garbage refers to, which refers to itself."""
    if len(ancestors.found) < 2 or not ancestors.counts_agree():
        return None
    inside = {id(one): at for at, one in enumerate(ancestors.found)}
    for at, held in enumerate(ancestors.found[1:], 1):
        if issubclass(type(held), (dict, *CONTAINERS, FunctionType)) or type(held).__name__ == "cell":
            continue
        for name, value in attributes_of(held).items():
            if id(value) in inside and _leads_to(value, held, inside):
                kind = type(held)
                return Answer(f"cycle through {kind.__name__}.{name}", "cycle", _bound_in(ancestors.path(at)))
    return Answer(f"cycle through a {_first_container(ancestors)}", "cycle", None)


def _bound_in(path: list[Any]) -> Place | None:
    """Return the line of a class that binds the attribute by which an object keeps a tensor."""
    held = path[0]
    ids = {id(one) for one in path[1:]}
    name = next((key for key, value in attributes_of(held).items() if id(value) in ids), None)
    return None if name is None else feeding_line(methods_of(type(held)), Named("self", name, False))


def _first_container(ancestors: Ancestors) -> str:
    return next((type(one).__name__ for one in ancestors.found[1:] if type(one).__name__ != "cell"), "cell")


def _leads_to(start: Any, target: Any, inside: dict[int, int]) -> bool:
    waiting, met = [start], {id(start)}
    while waiting:
        for one in _referents(waiting.pop()):
            if one is target:
                return True
            if id(one) in inside and id(one) not in met:
                met.add(id(one))
                waiting.append(one)
    return False


def _referents(held: Any) -> Iterator[Any]:
    for one in gc.get_referents(held):
        yield one
        if type(one) is dict:
            yield from gc.get_referents(one)


def _module_of(held: Any) -> ModuleType | None:
    """Return the module whose variables a dictionary is."""
    if type(held) is not dict:
        return None
    module = sys.modules.get(name) if type(name := held.get("__name__")) is str else None
    return module if isinstance(module, ModuleType) and vars(module) is held else None
