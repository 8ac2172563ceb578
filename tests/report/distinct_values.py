"""Results in which no two values are alike, so that a value shown in the place of another is seen."""

from __future__ import annotations

import dataclasses
import itertools
import types
import typing
from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

import numpy as np

T = TypeVar("T")


def distinct(result_type: type[T]) -> T:
    """Return a result with every field filled, also the optional ones, and with one item in every list."""
    value: T = _value(result_type, itertools.count(1_000_003, 1_009))
    return value


def _value(kind: Any, numbers: Iterator[int]) -> Any:
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if dataclasses.is_dataclass(kind):
        hints = typing.get_type_hints(kind)
        fields = [field for field in dataclasses.fields(kind) if field.init]
        return kind(**{field.name: _value(hints[field.name], numbers) for field in fields})  # type: ignore[operator]
    if origin in {typing.Union, types.UnionType}:
        return _value(next(one for one in arguments if one is not type(None)), numbers)
    if origin is typing.Literal:
        return arguments[next(numbers) % len(arguments)]
    if origin is tuple:
        items = arguments[:1] if arguments[-1] is Ellipsis else arguments
        return tuple(_value(item, numbers) for item in items)
    if origin is list or (isinstance(origin, type) and issubclass(origin, Mapping)):
        if origin is list:
            return [_value(arguments[0], numbers)]
        return {_value(arguments[0], numbers): _value(arguments[1], numbers)}
    if origin is np.ndarray or kind is np.ndarray:
        return np.array([next(numbers)])
    if kind in {object, Any}:
        return f"text {next(numbers)}"
    if kind is bool:
        return True
    return f"text {next(numbers)}" if kind is str else kind(next(numbers))


def without_optional(result: T) -> T:
    """Return the result with None in every field that may be None, and so in every result below it."""
    hints = typing.get_type_hints(type(result))
    changed: dict[str, Any] = {}
    for field in dataclasses.fields(result):  # type: ignore[arg-type]
        value = getattr(result, field.name)
        if field.init and type(None) in typing.get_args(hints[field.name]):
            changed[field.name] = None
        elif dataclasses.is_dataclass(value):
            changed[field.name] = without_optional(value)
        elif isinstance(value, tuple):
            changed[field.name] = tuple(
                without_optional(one) if dataclasses.is_dataclass(one) else one for one in value
            )
    return dataclasses.replace(result, **changed)  # type: ignore[type-var]
