"""What a module holds, read from the tables that torch keeps in it.

`named_parameters` and its like are the program's to override: they may print, count, filter or fail, and a program that
is recorded must not see them called.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

_Named = Iterator[tuple[str, Any]]


def modules_in(root: Any) -> _Named:
    """Yield a module and those inside it by path, each once under its first, in the order of `named_modules`."""
    met: set[int] = set()
    waiting: list[tuple[str, Any]] = [("", root)]
    while waiting:
        path, module = waiting.pop()
        if module is None or id(module) in met:
            continue
        met.add(id(module))
        yield path, module
        children = list(module._modules.items())
        waiting += [(_joined(path, name), child) for name, child in reversed(children)]


def parameters_in(root: Any) -> _Named:
    """Yield the parameters of a module and those inside it by path, each once."""
    return _members(root, "_parameters")


def buffers_in(root: Any) -> _Named:
    """Yield the buffers of a module and those inside it by path, each once."""
    return _members(root, "_buffers")


def _members(root: Any, table: str) -> _Named:
    met: set[int] = set()
    for path, module in modules_in(root):
        for name, member in getattr(module, table).items():
            if member is not None and id(member) not in met:
                met.add(id(member))
                yield _joined(path, name), member


def _joined(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name
