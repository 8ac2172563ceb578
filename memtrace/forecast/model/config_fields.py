"""The values of a model's configuration, each checked when it is asked for: the file is from outside.

In: the decoded JSON. Out: whole numbers, flags, probabilities and texts, or an error that names the field.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from memtrace.errors import MemtraceError
from memtrace.forecast.model.spec import MAX_LAYERS

_MISSING = object()


class ConfigFields:
    """The values of one configuration, each checked when it is asked for, under any of several names."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        self._config = config

    def with_defaults(self, defaults: Mapping[str, Any]) -> ConfigFields:
        """Return the same values, with others in the place of what is not there or null."""
        found = {name: value for name, value in self._config.items() if value is not None}
        return ConfigFields({**self._config, **defaults, **found})

    def integer(self, *names: str, default: int | object | None = _MISSING) -> Any:
        """Return a whole number that is not negative; the default where no name is there, an error without one."""
        value = self._first(names, default)
        if value is default and default is not _MISSING:
            return value
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            raise MemtraceError(f"config: {names[0]} must be a whole number, not {shown(value)}")
        return value

    def layers(self, *names: str, default: int | object = _MISSING) -> int:
        """Return a number of layers, as `integer`, that a model may have: some readers go through them one by one."""
        value: int = self.integer(*names, default=default)
        if value > MAX_LAYERS:
            raise MemtraceError(f"config: {names[0]} must be at most {MAX_LAYERS}, not {shown(value)}")
        return value

    def flag(self, *names: str, default: bool) -> bool:
        """Return true or false."""
        value = self._first(names, default)
        if not isinstance(value, bool):
            raise MemtraceError(f"config: {names[0]} must be true or false, not {shown(value)}")
        return value

    def number(self, *names: str, default: float) -> float:
        """Return a probability."""
        value = self._first(names, default)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < 1:
            raise MemtraceError(f"config: {names[0]} must be a number from 0 to below 1, not {shown(value)}")
        return float(value)

    def integers(self, name: str) -> list[Any]:
        """Return a list of whole numbers; an empty one where the name is not there."""
        value = self._first((name,), [])
        if not isinstance(value, list) or not all(type(one) is int for one in value):
            raise MemtraceError(f"config: {name} must be a list of whole numbers, not {shown(value)}")
        return value

    def is_set(self, name: str) -> bool:
        """Return whether a name is there with a value other than null."""
        return self._config.get(name) is not None

    def text(self, *names: str, default: str) -> str:
        """Return a text."""
        value = self._first(names, default)
        if not isinstance(value, str):
            raise MemtraceError(f"config: {names[0]} must be a text, not {shown(value)}")
        return value

    def _first(self, names: tuple[str, ...], default: Any) -> Any:
        for name in names:
            if self._config.get(name) is not None:
                return self._config[name]
        if default is _MISSING:
            raise MemtraceError(f"config: there is no {names[0]}")
        return default


def shown(value: Any) -> str:
    """Return a value as an error message quotes it."""
    return repr(value)[:60]


def head_width(hidden: int, heads: int) -> int:
    """Return the width of a head."""
    if not heads or hidden % heads:
        raise MemtraceError(f"config: a hidden size of {hidden} cannot be divided among {heads} heads")
    return hidden // heads
