"""Bounds of an answer: an agent has room for a few thousand words, and a trace may hold a million rows."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import islice
from typing import Any, TypeVar

from pydantic import BaseModel

from memtrace.printable import clean

MAX_CHARS = 24_000
"""Most characters of an answer, as JSON."""
MAX_ROWS = 50
"""Most rows that may be asked for at a time."""
DEFAULT_ROWS = 10
MAX_TEXT = 600
_MAX_FRAME = 160
_MAX_VALUES = 12
_MAX_NESTED = (12, 3, 4)
"""Values of evidence, of a list in it, of a list or object in that."""

Row = TypeVar("Row")
Shown = TypeVar("Shown", bound=BaseModel)


class Room:
    """The rows that an answer has room for, and what of each list was left out."""

    def __init__(self, limit: int, offset: int) -> None:
        self.limit = limit
        self.offset = offset
        self.left_out: list[str] = []
        """A sentence for each list that is not whole."""

    def rows(self, name: str, found: Sequence[Row]) -> list[Row]:
        """Return the rows of a list that were asked for."""
        shown = list(found[self.offset : self.offset + self.limit])
        after = self.offset + len(shown)
        if len(shown) < len(found):
            what = f"{self.offset + 1} to {after}" if shown else "none"
            more = f"; offset={after} shows the next" if shown and after < len(found) else ""
            self.left_out.append(f"{name}: {what} of {len(found)}{more}")
        return shown

    def first(self, name: str, found: Sequence[Row], most: int, *, where: str) -> list[Row]:
        """Return the first rows of a list that another tool shows in full."""
        if len(found) > most:
            self.left_out.append(f"{name}: the first {most} of {len(found)}; {where}")
        return list(found[:most])

    def say_missing(self, warnings: Iterable[Any]) -> None:
        """Say which files and ranks of the run could not be read, of the warnings of a run."""
        named = dict.fromkeys(one.message for one in warnings if one.slug == "file-unreadable")
        self.left_out += texts(named)


def fitting(make: Callable[[Room], Shown], limit: int, offset: int) -> Shown:
    """Return the answer with as many rows as were asked for; with fewer where it would not fit otherwise."""
    while True:
        answer = make(Room(limit, offset))
        if limit <= 1 or len(answer.model_dump_json()) <= MAX_CHARS:
            return answer
        limit //= 2


def text(value: object, most: int = MAX_TEXT) -> str:
    """Return a text that is not too long and has no character that acts instead of being seen.

    >>> text("blocks.0", 6), text("a\\x1b[2Jb")
    ('blocks…', 'a�[2Jb')
    """
    whole = clean(str(value), keep="\n")
    return whole if len(whole) <= most else whole[:most] + "…"


def texts(values: Iterable[object]) -> list[str]:
    """Return a few texts, bounded each."""
    return [text(value) for value in list(values)[:_MAX_VALUES]]


def frames(found: Iterable[str]) -> list[str]:
    """Return frames; of a long path its end."""
    shown = [text(frame, 4 * _MAX_FRAME) for frame in found]
    return [frame if len(frame) <= _MAX_FRAME else "…" + frame[-_MAX_FRAME:] for frame in shown]


def plain(value: Any, depth: int = 0) -> Any:
    """Return evidence as plain JSON values, bounded in every direction; "…" stands for what was cut off a list.

    >>> plain({"lines": [1, 2, 3, 4, 5]})
    {'lines': [1, 2, 3, '…']}
    """
    if value is None or isinstance(value, (bool, int, float)):
        return value
    if isinstance(value, (Mapping, list, tuple)):
        most = _MAX_NESTED[depth] if depth < len(_MAX_NESTED) else 0
        if isinstance(value, Mapping):
            return {text(key, 40): plain(one, depth + 1) for key, one in islice(value.items(), most)}
        return [plain(one, depth + 1) for one in value[:most]] + (["…"] if len(value) > most else [])
    return text(value, 200 if depth < 2 else 40)
