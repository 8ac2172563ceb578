"""What one chunk collects before it is written: rows as tuples on the hot path, columns and ids when it is encoded."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Protocol

from memtrace.hooks.parts.packed_columns import packed_line
from memtrace.schema import records, tables
from memtrace.schema.records import Record

Row = tuple[Any, ...]

# A chunk that begins for one of these follows the one before without a gap.
_WITHOUT_GAP = frozenset({"step", "switch", "ring", "fork", "oom"})


class StringTable:
    """Strings of one chunk, each with the id of its first use."""

    def __init__(self) -> None:
        self._ids: dict[str, int] = {}

    def id_of(self, text: str) -> int:
        """Return the id of a string, new or known."""
        return self._ids.setdefault(text, len(self._ids))

    def ids_of(self, texts: Sequence[str | None]) -> list[Any]:
        """Return the id of each string of a column; `None` where there is none."""
        ids = {text: None if text is None else self.id_of(text) for text in dict.fromkeys(texts)}
        return list(map(ids.__getitem__, texts))

    def record(self) -> Record:
        """Return the record that holds all strings in the order of their ids."""
        return {"k": records.STRINGS, "values": list(self._ids)}


class StackTable:
    """Frames and stacks of one chunk; a stack is its innermost frame and the stack that called it."""

    def __init__(self, strings: StringTable) -> None:
        self._strings = strings
        self._frames: dict[tuple[str, int, str], int] = {}
        self._stacks: dict[tuple[int, int | None], int] = {}

    def push(self, parent: int | None, file: str, line: int, function: str) -> int:
        """Return the stack that has this frame on top of `parent` (`None` at the outermost frame)."""
        frame = self._frames.setdefault((file, line, function), len(self._frames))
        return self._stacks.setdefault((frame, parent), len(self._stacks))

    def records(self) -> list[Record]:
        """Return the `frames` and `stacks` records."""
        string_id = self._strings.id_of
        frames = [(string_id(file), line, string_id(function)) for file, line, function in self._frames]
        return [columns_record(tables.FRAMES, frames), columns_record(tables.STACKS, list(self._stacks))]


class Lines(Protocol):
    """Rows that know their own lines of a chunk."""

    def __len__(self) -> int:
        """Return how many rows there are."""

    def lines(self) -> bytes:
        """Return whole lines."""


class Chunk:
    """Rows of one chunk. Callbacks append tuples in the order of the table's columns; strings are still strings."""

    def __init__(self, *, step: int, reason: str, start_ns: int) -> None:
        self.step = step
        self.reason = reason
        self.start_ns = start_ns
        self.phases: list[Row] = []
        self.scopes: list[Row] = []
        self.owners: list[Row] = []
        self.sweeps: list[Lines] = []
        """All owners at a moment, beside the rows of some."""
        self.saved: list[Lines] = []
        """What each walk for saved tensors found."""
        self.keepers: list[Row] = []
        self.replica_forwards: list[Row] = []
        self.reducer_timings: list[Row] = []
        self.own_work: list[Row] = []
        self.annotations: list[Row] = []

    @property
    def num_marks(self) -> int:
        """Rows collected so far."""
        tables_of_rows = (self.phases, self.scopes, self.owners, self.keepers, self.annotations)
        return sum(map(len, tables_of_rows)) + sum(len(one) for one in (*self.sweeps, *self.saved))

    @property
    def num_rows(self) -> int:
        """All rows, also those that do not call for an early write."""
        return self.num_marks + sum(map(len, (self.replica_forwards, self.reducer_timings, self.own_work)))

    def records(
        self, number: int, end_ns: int, events: EventBatch, *, keep_from_ns: int | None = None
    ) -> list[Record | bytes]:
        """Return all records of the chunk, in the order that readers expect; some as lines already.

        Before `keep_from_ns`, the events of a native dump are not wanted.
        """
        strings = events.strings
        body = [
            *events.records(),
            *(
                {"k": table.name, "columns": encoded_columns(table, rows, strings)}
                for table, rows in (
                    (tables.PHASES, self.phases),
                    (tables.SCOPES, self.scopes),
                    (tables.OWNERS, self.owners),
                    (tables.KEEPERS, self.keepers),
                    (tables.REPLICA_FORWARDS, self.replica_forwards),
                    (tables.REDUCER_TIMINGS, self.reducer_timings),
                    (tables.OWN_WORK, self.own_work),
                    (tables.ANNOTATIONS, self.annotations),
                )
                if rows
            ),
        ]
        head: Record = {
            "k": records.CHUNK,
            "number": number,
            "step": self.step,
            "reason": self.reason,
            "source": events.source,
            "start_ns": self.start_ns,
            "end_ns": end_ns,
            "initial_bytes": events.initial_bytes,
            "num_lost": events.num_lost,
            "max_entries": events.max_entries,
            "continues": self.reason in _WITHOUT_GAP,
        }
        if keep_from_ns is not None:
            head["keep_from_ns"] = keep_from_ns
        # Each brings strings of its own, which from there on are those that ids mean.
        lines = [one.lines() for one in (*self.saved, *self.sweeps)]
        return [head, strings.record(), *body, *lines, {"k": records.CHUNK_END}]


class EventBatch:
    """Events of one chunk as columns, from any source. A source that dumps natively leaves the columns empty."""

    def __init__(self, source: str, *, is_native: bool = False) -> None:
        self.source = source
        self.is_native = is_native
        self.max_entries: int | None = None
        """How many events the source could hold: as many events mean that older ones were lost."""
        self.initial_bytes: int | None = None
        self.num_lost: int | None = 0
        self.strings = StringTable()
        self.stacks = StackTable(self.strings)
        self.columns: dict[str, Any] = {}
        self.living: dict[str, Any] = {}
        """Columns of the blocks that were live before the first event, where the source knows them all."""

    def records(self) -> list[Record | bytes]:
        """Return the `frames`, `stacks`, `events` and `initial_blocks` records, if there are events."""
        if not self.columns:
            return []
        events = packed_line(tables.EVENTS.name, self.columns)
        living = [packed_line(tables.INITIAL_BLOCKS.name, self.living)] if self.living else []
        return [*self.stacks.records(), events, *living]


def columns_record(table: tables.Table, rows: Sequence[Row]) -> Record:
    """Return rows, whose strings are ids already, as one record of columns."""
    columns: Iterable[Sequence[Any]] = zip(*rows, strict=True) if rows else ((),) * len(table.columns)
    return {"k": table.name, "columns": dict(zip(table.column_names(), columns, strict=True))}


def spared(values: Sequence[Any]) -> Any:
    """Return one value for all rows where it stands in each. One column of a table must stay a column."""
    return values[0] if len(set(values)) == 1 else values


def encoded_columns(table: tables.Table, rows: Sequence[Row], strings: StringTable) -> dict[str, Sequence[Any]]:
    """Return the columns of rows, with the id of each string in its place."""
    columns: dict[str, Sequence[Any]] = columns_record(table, rows)["columns"]
    for column in table.columns:
        if column.kind == "string":
            columns[column.name] = strings.ids_of(columns[column.name])
    return columns
