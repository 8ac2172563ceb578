"""Results as JSON values: a field stands under its own name, so that a document says what the result says.

In: results, and dictionaries and sequences of them. Out: what JSON knows. A part of the contract has a function of its
own only where its keys are not those of a result.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

from memtrace.printable import encodable


def plain(value: Any) -> Any:
    """Return a value with every result in it as an object; lone surrogates, which JSON cannot hold, are replaced."""
    if isinstance(value, str):
        return encodable(value)
    if isinstance(value, Mapping):
        return {plain(key): plain(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(one) for one in value]
    return plain_fields(value) if is_dataclass(value) else value


def plain_fields(result: Any, *, without: Collection[str] = ()) -> dict[str, Any]:
    """Return a result, or a dictionary, as an object, without the fields that it does not show."""
    if isinstance(result, Mapping):
        return {key: plain(value) for key, value in result.items() if key not in without}
    names = [one.name for one in fields(result) if one.name not in without]
    return {name: plain(getattr(result, name)) for name in names}
