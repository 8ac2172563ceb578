"""The facts of a header, checked once on reading, so that what reads a field later may rely on its type.

The types are those that `memtrace.schema.tables` states. A missing field and null are "not recorded".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from memtrace.errors import TraceReadError
from memtrace.schema.tables import RANK_HEADER, TRACE_HEADER, Field
from memtrace.store.columns import MAX_TIME_NS, MIN_TIME_NS

_TYPES: dict[str, type] = {"string": str, "int": int, "bool": bool, "object": dict}
_ITEMS: dict[str, type] = {"list of strings": str, "list of objects": dict}
MAX_COUNT = 2**31
"""Ranks and processes have numbers below this."""
MAX_DEPTH = 50
"""Levels of objects and lists within each other: what goes through them calls itself for each."""
_COUNTS = dict.fromkeys(("rank", "local_rank", "world_size", "pid"), MAX_COUNT)
"""Below what a number must be that counts or names processes; none is negative."""


def check_trace_header(header: Mapping[str, Any], *, where: str) -> None:
    """Check the header of a trace file.

    Raises:
        TraceReadError: a field is not what the schema says; the message names it.
    """
    _check(header, TRACE_HEADER, where)


def check_rank_header(header: Mapping[str, Any], *, where: str) -> None:
    """Check the header of a rank.

    Raises:
        TraceReadError: a field is not what the schema says; the message names it.
    """
    _check(header, RANK_HEADER, where)
    for name, limit in _COUNTS.items():
        value = header.get(name)
        if value is not None and not 0 <= value < limit:
            raise _refused(f"{where}: {name} is not between 0 and {limit - 1}")
    for name in ("start_ns", "end_ns"):
        if (value := header.get(name)) is not None and not MIN_TIME_NS <= value < MAX_TIME_NS:
            raise _refused(f"{where}: {name} is a time that no clock shows")
    for device in header.get("devices") or ():
        name, capacity = device.get("name"), device.get("capacity_bytes")
        if not isinstance(name, (str, type(None))):
            raise _refused(f"{where}: devices: name is not a string")
        if capacity is not None and (type(capacity) is not int or not 0 <= capacity < 2**62):
            raise _refused(f"{where}: devices: capacity_bytes is not a number of bytes")


def _check(header: Mapping[str, Any], fields: Sequence[Field], where: str) -> None:
    for name, value in header.items():
        if _is_deep(value):
            raise _refused(f"{where}: {name} is nested deeper than {MAX_DEPTH} levels")
    for field in fields:
        value = header.get(field.name)
        kind = field.kind.removesuffix(" or null")
        if value is not None and not _is(value, kind):
            raise _refused(f"{where}: {field.name} is not {_with_article(kind)}")


def _is(value: Any, kind: str) -> bool:
    """Return whether a value is of a kind of the schema. An int fits 64 bits, and a bool is none."""
    if kind in _ITEMS:
        return isinstance(value, list) and all(isinstance(one, _ITEMS[kind]) for one in value)
    if kind == "int":
        return type(value) is int and -(2**63) < value < 2**63
    return isinstance(value, _TYPES[kind])


def _is_deep(value: Any) -> bool:
    """Return whether objects and lists lie within each other more often than any of ours do."""
    level = [value]
    for _ in range(MAX_DEPTH):
        inner = (one.values() if isinstance(one, dict) else one for one in level if isinstance(one, (dict, list)))
        level = [value for values in inner for value in values if isinstance(value, (dict, list))]
        if not level:
            return False
    return True


def _with_article(kind: str) -> str:
    return f"{'an' if kind[0] in 'io' else 'a'} {kind}"


def _refused(message: str) -> TraceReadError:
    return TraceReadError(message, hint="copy or record it again", slug="file-damaged")
