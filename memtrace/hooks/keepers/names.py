"""A chain of objects in words: `list 'losses'`, `Trainer.history[…].loss`, `'acts' in the closure of hook`.

Each stretch of a chain is an expression of the program; where it goes through a closure, a traceback or the cache of a
function, a new stretch begins, and the text says how the two hang together.
"""

from __future__ import annotations

from collections import deque
from functools import partial
from types import CodeType, FrameType, FunctionType, GeneratorType, MethodType, TracebackType
from typing import Any

from memtrace.hooks.keepers.edges import (
    CONTAINERS,
    LRU_CACHE,
    MODULE_TABLES,
    attributes_of,
    content_of,
    is_own_dict,
)
from memtrace.hooks.keepers.program_frames import ended_variables
from memtrace.hooks.keepers.reach import Chain

_MAX_KEYS = 64
"""In a dictionary of so many keys, what a key is tells something."""
_MAX_KEY_CHARS = 40
_SELF = frozenset({"self", "cls"})
_UNNAMED = "…"


class NamedChain:
    """The words for a chain, and what the last stretch of it is: that is where things are fed."""

    def __init__(self, chain: Chain) -> None:
        self.kind = "variable"
        """variable, container, bounded (one that holds only so many), attribute, closure, traceback or cache."""
        self.cache: Any = None
        """The function whose results a cache keeps."""
        self.code: CodeType | None = None
        """The code in which the last stretch begins; `None` where that is where the chain does."""
        first = chain.objects[0]
        self.variable = chain.variable
        """The variable that the last stretch starts with; empty where none does."""
        self.first: Any = first
        """The object that it names."""
        self._start = (
            type(first).__name__ if chain.variable in _SELF and not isinstance(first, type) else chain.variable
        )
        self._steps: list[str] = []
        self._holder: Any = first
        self._outer = ""
        self._follow(chain.objects)

    @property
    def attribute(self) -> str | None:
        """The first attribute of the last stretch, where it begins with one."""
        first = self._steps[0] if self._steps else ""
        return first[1:] if first.startswith(".") else None

    @property
    def is_container(self) -> bool:
        """Whether the last stretch ends in a container and not in a variable or an attribute."""
        return any(step.startswith("[") for step in self._steps)

    def text(self) -> str:
        """Return the chain in words, what is nearest to the tensor first."""
        return " ".join(part for part in (self._expression(), self._outer) if part)

    def _expression(self) -> str:
        if not self.variable:
            return ""
        if not self._steps:
            return f"'{self._start}'"
        if all(step.startswith("[") for step in self._steps):
            return f"{type(self._holder).__name__} '{self._start}'"
        return self._start + "".join(self._steps)

    def _follow(self, objects: list[Any]) -> None:
        at = 0
        while at + 1 < len(objects):
            parent, child = objects[at], objects[at + 1]
            if type(child) is dict and is_own_dict(parent, child) and at + 2 < len(objects):
                # An object refers to its attributes by a dictionary, of which the program says nothing.
                at += 1
                child = objects[at + 1]
            if at + 2 < len(objects) and is_table_of(parent, child):
                self._of_module(parent, child, objects[at + 2])
                at += 1
            else:
                self._name(parent, child)
            at += 1

    def _name(self, parent: Any, child: Any) -> None:
        kind = type(parent)
        if issubclass(kind, TracebackType):
            return
        if issubclass(kind, FrameType):
            self._into_frame(parent, child)
        elif (forward := getattr(type(child), "_forward_cls", None)) is not None:
            # The node of an autograd function of the program, which a tensor of its graph refers to.
            self._begin(f"of {forward.__name__}, in the graph of {{kept}}", "ctx", child, "context")
            self.code = getattr(getattr(forward, "forward", None), "__code__", None)
        elif issubclass(kind, BaseException) and child is parent.__traceback__:
            self._begin(f"in the traceback of {kind.__name__} kept by {{kept}}", "", child, "traceback")
        elif kind.__name__ == LRU_CACHE:
            self._begin(f"the cache of {_callable(parent)}", "", child, "cache")
            self.cache = parent.__wrapped__
        elif issubclass(kind, FunctionType):
            self._into_function(parent, child)
        elif issubclass(kind, GeneratorType):
            name = _key_of({} if parent.gi_frame is None else ended_variables(parent.gi_frame), child) or _UNNAMED
            self._begin(f"of the generator {parent.__name__}", name, child, "closure")
        else:
            self._into_object(parent, child)

    def _into_object(self, parent: Any, child: Any) -> None:
        kind = type(parent)
        if issubclass(kind, dict) and any(child is value for value in dict.values(parent)):
            key = _key_of(parent, child) if len(parent) <= _MAX_KEYS else None
            self._step(parent, "[…]" if key is None else f"['{key}']", "container")
        elif issubclass(kind, CONTAINERS) and child not in _values(attributes_of(parent)):
            self._step(parent, "[…]", "bounded" if _is_bounded(parent) else "container")
        else:
            name = _key_of(attributes_of(parent), child) or _key_of(_other_table(parent), child)
            self._step(parent, f".{name or _UNNAMED}", "attribute")

    def _of_module(self, module: Any, table: dict[str, Any], child: Any) -> None:
        name = _key_of(table, child)
        self._step(module, f".{name or _UNNAMED}", "attribute")

    def _into_frame(self, frame: FrameType, child: Any) -> None:
        name = _key_of(ended_variables(frame), child) or _UNNAMED
        self._outer = f"of {_code_name(frame.f_code)}, {self._outer}" if self._outer else ""
        self._start = self.variable = name
        self.first, self._holder, self.code, self._steps = child, child, frame.f_code, []

    def _into_function(self, function: FunctionType, child: Any) -> None:
        names = function.__code__.co_freevars
        cells = function.__closure__ or ()
        name = next((one for one, cell in zip(names, cells, strict=False) if content_of(cell) is child), None)
        if name is not None:
            self._begin(f"in the closure of {_callable(function)}{self._kept()}", name, child, "closure")
            self.code = function.__code__
        elif (key := _key_of(function.__dict__, child)) is not None:
            self._step(function, f".{key}", "attribute")
        else:
            self._begin(f"in the default values of {_callable(function)}", "", child, "closure")

    def _kept(self) -> str:
        """Return by what a function is kept, where it is not merely a name."""
        return ", kept by {kept}" if self._steps or self._outer else ""

    def _step(self, parent: Any, step: str, kind: str) -> None:
        if not self.variable:
            return
        if self.kind in ("variable", "container", "attribute"):
            self.kind = kind
        if step == "[…]" and self._steps and self._steps[-1].startswith("["):
            return
        self._steps.append(step)
        if len(self._steps) == 1 or step.startswith("."):
            self._holder = parent

    def _begin(self, joint: str, start: str, value: Any, kind: str) -> None:
        self._outer = joint.replace("{kept}", self.text())
        self.kind = kind
        self._start = self.variable = start
        self.first, self._holder, self._steps = value, value, []


def is_table_of(module: Any, table: Any) -> bool:
    """Return whether a dictionary is where a module of torch keeps its parameters, buffers or modules."""
    if not issubclass(type(table), dict):
        return False
    try:
        own = object.__getattribute__(module, "__dict__")
    except AttributeError:
        return False
    return "_modules" in own and any(own.get(name) is table for name in MODULE_TABLES)


def _is_bounded(container: Any) -> bool:
    """Return whether a container lets go of the oldest when it is full."""
    return isinstance(container, deque) and deque.maxlen.__get__(container) is not None


def _values(table: dict[str, Any]) -> _Identities:
    return _Identities(table.values())


class _Identities:
    """Objects, told by identity: comparing them would run code of the program."""

    def __init__(self, values: Any) -> None:
        self._ids = {id(value) for value in values}

    def __contains__(self, value: object) -> bool:
        return id(value) in self._ids


def _key_of(table: dict[Any, Any], value: Any) -> str | None:
    for key, one in dict.items(table):
        if one is value:
            return key if type(key) is str and len(key) <= _MAX_KEY_CHARS and key.isprintable() else None
    return None


def _other_table(held: Any) -> dict[str, Any]:
    """Return what hangs on an object and is no attribute of its own: of a class, a method, a call with arguments."""
    if isinstance(held, type):
        return dict(vars(held))
    if isinstance(held, MethodType):
        return {"__self__": held.__self__, "__func__": held.__func__}
    if isinstance(held, partial):
        return {"func": held.func, "args": held.args, "keywords": held.keywords}
    return {}


def _callable(held: Any) -> str:
    if isinstance(held, partial):
        return _callable(held.func)
    if isinstance(held, MethodType):
        return _callable(held.__func__)
    return str(getattr(held, "__qualname__", None) or type(held).__name__).replace("<locals>.", "")


def _code_name(code: CodeType) -> str:
    return code.co_name
