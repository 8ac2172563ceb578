"""One chunk of a part: columns with its own strings, frames and stacks, brought to those of the whole trace."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from memtrace.errors import TraceReadError
from memtrace.schema import records
from memtrace.schema.records import Record
from memtrace.schema.tables import (
    ANNOTATIONS,
    EVENTS,
    FRAMES,
    INITIAL_BLOCKS,
    KEEPERS,
    OWN_WORK,
    OWNERS,
    PHASES,
    REDUCER_TIMINGS,
    REPLICA_FORWARDS,
    SAVED,
    SCOPES,
    STACKS,
    Table,
)
from memtrace.store.columns import NULL, Array, IntArray
from memtrace.store.parts.lines import read_lines
from memtrace.store.stacks import StackTable
from memtrace.store.strings import StringTable
from memtrace.store.trace_file import read_column

MARKS = (PHASES, SCOPES, OWNERS, SAVED, KEEPERS, REPLICA_FORWARDS, REDUCER_TIMINGS, OWN_WORK)
"""What the hooks note, beside events and annotations, in any chunk."""


@dataclass(slots=True)
class Chunk:
    """One chunk, its ids already those of the trace."""

    path: Path
    facts: Record
    """Fields of the chunk record: reason, start_ns, end_ns, initial_bytes, num_lost, continues, keep_from_ns …"""
    tables: dict[str, list[dict[str, Array]]] = field(default_factory=dict)
    """Columns of each table; a table may be written in pieces."""
    is_whole: bool = False
    num_damaged: int = 0
    num_unknown: int = 0
    """Records and columns that this memtrace does not know."""

    @property
    def number(self) -> int:
        """Number of the chunk, as its name has it."""
        digits = self.path.name.partition(records.CHUNK_INFIX)[2][:6]
        return int(digits) if digits.isdecimal() and digits.isascii() else 0

    def fact(self, name: str) -> int | None:
        """Return a number of the chunk record, or `None`."""
        value = self.facts.get(name)
        return value if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**62 else None

    def events(self) -> dict[str, IntArray] | None:
        """Return the columns of its events, or `None` where it holds none."""
        pieces = self.tables.get(EVENTS.name)
        if not pieces:
            return None
        return {name: np.concatenate([piece[name] for piece in pieces]) for name in EVENTS.column_names()}


def read_chunk(path: Path, strings: StringTable, stacks: StackTable) -> Chunk:
    """Return a chunk.

    Raises:
        TraceReadError: a column is not what it should be.
    """
    lines = read_lines(path)
    chunk = Chunk(path=path, facts={}, num_damaged=lines.num_damaged)
    translation = _Translation(strings=strings, stacks=stacks, where=path.name)
    for record in lines.records:
        kind = record["k"]
        if kind == records.CHUNK:
            chunk.facts = record
        elif kind == records.CHUNK_END:
            chunk.is_whole = True
        elif kind == records.STRINGS:
            translation.take_strings(record)
        elif kind in (FRAMES.name, STACKS.name):
            translation.take_stacks(kind, record)
        else:
            _take_table(chunk, translation, kind, record)
    return chunk


def _take_table(chunk: Chunk, translation: _Translation, kind: str, record: Record) -> None:
    table = next((one for one in (EVENTS, INITIAL_BLOCKS, *MARKS, ANNOTATIONS) if one.name == kind), None)
    if table is None:
        chunk.num_unknown += 1
        return
    columns, num_unknown = translation.columns(table, record)
    chunk.num_unknown += num_unknown
    chunk.tables.setdefault(kind, []).append(columns)


@dataclass(slots=True)
class _Translation:
    """From the ids and rows of one chunk to those of the trace."""

    strings: StringTable
    stacks: StackTable
    where: str
    texts: list[str] = field(default_factory=list)
    string_ids: IntArray = field(default_factory=lambda: np.empty(0, np.int64))
    frame_rows: list[int] = field(default_factory=list)
    stack_rows: IntArray = field(default_factory=lambda: np.empty(0, np.int64))

    def take_strings(self, record: Record) -> None:
        """Learn the strings of the chunk."""
        values = record.get("values")
        if not isinstance(values, list):
            raise TraceReadError(f"{self.where}: strings without values", slug="file-damaged")
        self.string_ids = np.array([self.strings.id(value) for value in values], np.int64)
        self.texts = values

    def take_stacks(self, kind: str, record: Record) -> None:
        """Learn the frames or the stacks of the chunk."""
        table = FRAMES if kind == FRAMES.name else STACKS
        columns, _ = self._raw_columns(table, record)
        first, *others = (columns[name].tolist() for name in table.column_names())
        if table is FRAMES:
            lines, functions = others
            texts = self.texts
            rows = zip(first, lines, functions, strict=True)
            self.frame_rows += [self.stacks.frame(texts[file], line, texts[name]) for file, line, name in rows]
            return
        known = self.stack_rows.tolist()
        for frame, parent in zip(first, others[0], strict=True):
            if not (0 <= frame < len(self.frame_rows) and (parent == NULL or 0 <= parent < len(known))):
                raise TraceReadError(f"{self.where} stacks: a row that does not exist", slug="file-damaged")
            known.append(self.stacks.extend(self.frame_rows[frame], NULL if parent == NULL else known[parent]))
        self.stack_rows = np.array(known, np.int64)

    def columns(self, table: Table, record: Record) -> tuple[dict[str, Array], int]:
        """Return the columns of a table with the ids of the trace, and how many columns were not known."""
        columns, num_unknown = self._raw_columns(table, record)
        for column in table.columns:
            values = columns[column.name]
            if column.kind == "string":
                columns[column.name] = _looked_up(values, self.string_ids)
            elif column.unit == "row of stacks":
                known = values[values != NULL]
                if len(known) and not 0 <= known.min() <= known.max() < len(self.stack_rows):
                    raise TraceReadError(f"{self.where} {table.name}: a stack that does not exist", slug="file-damaged")
                columns[column.name] = _looked_up(values, self.stack_rows)
        return columns, num_unknown

    def _raw_columns(self, table: Table, record: Record) -> tuple[dict[str, Array], int]:
        given = record.get("columns")
        if not isinstance(given, dict):
            raise TraceReadError(f"{self.where} {table.name}: no columns", slug="file-damaged")
        where = f"{self.where} {table.name}"
        given = {name: _unpacked(values, f"{where}.{name}") for name, values in given.items()}
        lengths = {len(values) for values in given.values() if isinstance(values, (list, np.ndarray))}
        if len(lengths) > 1:
            raise TraceReadError(f"{self.where} {table.name}: columns of unequal length", slug="file-damaged")
        num_rows = lengths.pop() if lengths else 0
        columns = {
            column.name: read_column(
                column,
                _spread(given, column.name, num_rows),
                num_rows,
                len(self.string_ids),
                where=f"{self.where} {table.name}.{column.name}",
            )
            for column in table.columns
        }
        return columns, len(set(given) - set(table.column_names()))


def _unpacked(values: Any, where: str) -> Any:
    """Return a column that was written as bytes as 64-bit integers, `NULL` for null, and any other as it is."""
    if not isinstance(values, dict):
        return values
    try:
        (width,) = (num_bytes for num_bytes, name in records.PACKED.items() if name in values)
        words = np.frombuffer(base64.b64decode(values[records.PACKED[width]], validate=True), f"<i{width}")
    except (KeyError, TypeError, ValueError):
        raise TraceReadError(f"{where}: no column of integers", slug="file-damaged") from None
    numbers = words.astype(np.int64)
    numbers[words == np.iinfo(words.dtype).min] = NULL
    return numbers


def _spread(given: Mapping[str, Any], name: str, num_rows: int) -> Any:
    """Return a column as a list: one value may stand for all rows."""
    values = given.get(name)
    return values if values is None or isinstance(values, (list, np.ndarray)) else [values] * num_rows


def _looked_up(values: Array, table: IntArray) -> Array:
    known = values != NULL
    found = np.full(len(values), NULL, np.int64)
    found[known] = table[values[known]]
    return found
