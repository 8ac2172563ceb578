"""What a module is given and gives back: the tensors in it, and whether a call has left it as it was."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

_MAX_DEPTH = 4
_MAX_STATE_DEPTH = 8
"""A cache of keys and values holds layers, which hold tensors: it is looked into further than for tensors alone."""
_MAX_VALUES = 2000
_PLAIN = (bool, int, float, complex, str, bytes, type(None), type)


def tensors_of(value: Any, kind: type, depth: int = 0) -> Iterator[Any]:
    """Yield the tensors in a value: in containers, and in the attributes of data classes."""
    if isinstance(value, kind):
        yield value
    elif depth < _MAX_DEPTH:
        for one in _parts(value):
            yield from tensors_of(one, kind, depth + 1)


def _parts(value: Any) -> Iterator[Any]:
    if isinstance(value, Mapping):
        yield from value.values()
    elif isinstance(value, (list, tuple, set, frozenset)):
        yield from value
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        yield from vars(value).values() if hasattr(value, "__dict__") else ()


def state_of(value: Any, kind: type) -> tuple[Any, ...]:
    """Return what a call may not change of a value: versions of tensors, identities of what objects hold.

    Two states that are equal, with the value kept alive between them, say that nothing was changed that can be seen.
    """
    found: list[Any] = []
    _note(value, kind, found, set(), 0)
    return tuple(found)


def _note(value: Any, kind: type, found: list[Any], met: set[int], depth: int) -> None:
    if isinstance(value, _PLAIN):
        found.append(value if not isinstance(value, float) else repr(value))
        return
    if isinstance(value, kind):
        found.append((id(value), _version(value)))
        return
    if id(value) in met or depth > _MAX_STATE_DEPTH or len(found) > _MAX_VALUES:
        found.append(id(value))
        return
    met.add(id(value))
    found.append(id(value))
    if isinstance(value, Mapping):
        found.append(len(value))
        for name, one in list(value.items()):
            found.append(str(name))
            _note(one, kind, found, met, depth + 1)
    elif isinstance(value, (list, tuple)):
        found.append(len(value))
        for one in list(value):
            _note(one, kind, found, met, depth + 1)
    elif isinstance(value, (set, frozenset)):
        found.append(len(value))
    elif hasattr(value, "__dict__") and not callable(value):
        _note(vars(value), kind, found, met, depth + 1)


def _version(tensor: Any) -> int:
    try:
        return int(tensor._version)
    except RuntimeError:
        # A tensor made under inference mode counts no versions.
        return 0


def versions(tensors: list[Any]) -> list[int]:
    """Return how often each tensor was written to."""
    return [_version(one) for one in tensors]
