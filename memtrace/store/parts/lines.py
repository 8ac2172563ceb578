"""The JSON lines of a part: whole lines only, what cannot be read is counted."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from memtrace.errors import TraceReadError
from memtrace.schema.records import Record
from memtrace.store.opening import NotRegularError, open_regular


@dataclass(slots=True)
class PartLines:
    """The records of one file."""

    records: list[Record] = field(default_factory=list)
    num_damaged: int = 0
    """Lines in the middle that are no records."""
    is_cut_off: bool = False
    """Whether the last line was not finished: the process died while writing it."""


def read_lines(path: Path) -> PartLines:
    """Return the records of a part.

    Raises:
        TraceReadError: the file cannot be opened.
    """
    lines = PartLines()
    try:
        with open_regular(path) as file:
            for line in file:
                record = record_of(line)
                if record is not None:
                    lines.records.append(record)
                elif not line.endswith(b"\n"):
                    lines.is_cut_off = True
                elif line.strip():
                    lines.num_damaged += 1
    except NotRegularError:
        raise TraceReadError(f"{path}: not a regular file", slug="wrong-kind") from None
    except OSError as error:
        raise TraceReadError(f"{path}: {error.strerror or error}") from None
    return lines


def record_of(line: bytes) -> Record | None:
    """Return the record in a line, `None` if it is none."""
    try:
        record: Any = orjson.loads(line)
    except orjson.JSONDecodeError:
        return None
    return record if isinstance(record, dict) and isinstance(record.get("k"), str) else None
