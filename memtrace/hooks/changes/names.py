"""Names of modules as in a trace, by path from a root: a module that is called from outside any other.

The names are those of `loop/module_scopes.py`, but for a name that is taken: another module of that name gets a number,
so that a plan which names one module never means two.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable
from typing import Any

from memtrace.hooks.ownership.module_tree import modules_in


class _Depth(threading.local):
    """The modules whose forward runs now, of one thread."""

    def __init__(self) -> None:
        self.open: list[int] = []


class ModuleNames:
    """Knows which module has which name; `on_root` is told of each root, and of what is in it, at its first call."""

    def __init__(self, in_backward: Callable[[], bool], on_root: Callable[[Any, dict[str, Any]], None]) -> None:
        self._in_backward = in_backward
        self._on_root = on_root
        self._depth = _Depth()
        self._names: dict[int, str] = {}
        self._known: dict[int, weakref.ref[Any]] = {}
        self._taken: set[str] = set()
        self.num_roots = 0
        """Modules that were called from outside any other."""

    def before(self, module: Any) -> None:
        """Forward pre-hook."""
        opened = self._depth.open
        if id(module) in opened:
            del opened[opened.index(id(module)) :]
        if not opened and not self._in_backward() and self.name_of(module) is None:
            self._name_all(module)
        opened.append(id(module))

    @property
    def is_outermost(self) -> bool:
        """Whether the module whose forward runs now was called from outside any other."""
        return len(self._depth.open) == 1

    def after(self, module: Any) -> None:
        """Forward hook, also after an exception."""
        opened = self._depth.open
        if id(module) in opened:
            del opened[opened.index(id(module)) :]

    def name_of(self, module: Any) -> str | None:
        """Return the name of a module that is still the one which got it."""
        known = self._known.get(id(module))
        return self._names[id(module)] if known is not None and known() is module else None

    def _name_all(self, root: Any) -> None:
        own = type(root).__name__
        prefix = f"{own}." if self.num_roots else ""
        self.num_roots += 1
        found: dict[str, Any] = {}
        for path, module in modules_in(root):
            if self.name_of(module) is None:
                name = self._free(f"{prefix}{path}" if path else own)
                self._names[id(module)] = name
                self._known[id(module)] = weakref.ref(module)
                found[name] = module
        self._on_root(root, found)

    def _free(self, name: str) -> str:
        number, free = 1, name
        while free in self._taken:
            number += 1
            free = f"{name}#{number}"
        self._taken.add(free)
        return free
