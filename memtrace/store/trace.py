"""The trace in memory: frozen, columnar, never changed after loading. Everything right of the file starts from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from memtrace.store.columns import NULL, ColumnTable


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadWarning:
    """Something a reader could not see, dropped or ignored."""

    slug: str
    """Name of the message in docs/messages.md."""
    message: str
    """One sentence for the user."""
    count: int = 1
    """How often it happened."""


def rank_left_out(rank: object, at: int, why: str) -> LoadWarning:
    """Return the warning for a rank of several that is left out: it is named, or the process at this position is.

    >>> rank_left_out(3, 0, "cannot be read").message, rank_left_out(None, 0, "cannot be read").message
    ('rank 3 cannot be read and is left out', 'process 1 cannot be read and is left out')
    """
    name = f"rank {rank}" if type(rank) is int else f"process {at + 1}"
    return LoadWarning(slug="file-unreadable", message=f"{name} {why} and is left out")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RankTrace:
    """What one process left behind: header facts and column tables (see `memtrace.schema.tables`)."""

    header: Mapping[str, Any]
    """Fields of `RANK_HEADER`; a missing one was not recorded."""
    strings: tuple[str, ...]
    """The string table that all string columns point into."""
    tables: Mapping[str, ColumnTable]
    """Every table of the schema by name, present even when it has no rows."""
    warnings: tuple[LoadWarning, ...] = ()
    """What the recording and the reader could not see."""

    @property
    def source(self) -> str:
        """Where the trace came from, see `memtrace.schema.names.Source`."""
        return str(self.header["source"])

    @property
    def rank(self) -> int | None:
        """Global rank, or `None` outside a distributed run."""
        rank = self.header.get("rank")
        return None if rank is None else int(rank)

    @property
    def complete(self) -> bool:
        """Whether the recording ended in order."""
        return bool(self.header.get("complete", False))

    @property
    def num_events(self) -> int:
        """Rows of the events table."""
        return len(self.tables["events"])

    def table(self, name: str) -> ColumnTable:
        """Return one table by name."""
        return self.tables[name]

    def text(self, string_id: int) -> str | None:
        """Return the string with this id, `None` for null."""
        return None if string_id == NULL else self.strings[int(string_id)]

    def string_id(self, text: str) -> int:
        """Return the id of a string, or -1 if no column can hold it (so that a comparison finds nothing)."""
        try:
            return self.strings.index(text)
        except ValueError:
            return -1


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """One run: header facts and its ranks, ordered by rank."""

    header: Mapping[str, Any]
    """Fields of `TRACE_HEADER`."""
    ranks: tuple[RankTrace, ...]
    """One a process, ordered by rank, then by process id."""
    path: str
    """What was read, for messages."""
    warnings: tuple[LoadWarning, ...] = field(default=())
    """Files or ranks that could not be read."""
