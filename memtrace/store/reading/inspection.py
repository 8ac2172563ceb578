"""Raw records of a trace as plain values, for `memtrace inspect`: strings in place of their ids, null as `None`."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any

from memtrace.errors import MemtraceError
from memtrace.schema.tables import TABLES
from memtrace.store.trace import RankTrace, Trace

INSPECT_FORMAT = "memtrace-inspect"
INSPECT_VERSION = 1


def inspect_document(trace: Trace, *, table: str, head: int) -> dict[str, Any]:
    """Return the document that `memtrace inspect --json` prints: header, number of records, the first of one table.

    Raises:
        MemtraceError: there is no table of that name.
    """
    names = [one.name for one in TABLES]
    if table not in names:
        raise MemtraceError(f"no table named {table!r}", hint=f"there are {', '.join(names)}")
    warnings = [{"slug": one.slug, "message": one.message, "count": one.count} for one in trace.warnings]
    return {
        "format": INSPECT_FORMAT,
        "version": INSPECT_VERSION,
        "header": {**trace.header, "warnings": warnings, "ranks": [dict(rank.header) for rank in trace.ranks]},
        "num_records": {name: sum(len(rank.table(name)) for rank in trace.ranks) for name in names},
        "table": table,
        "records": list(islice(_records(trace, table), head)),
    }


def _records(trace: Trace, table: str) -> Iterator[dict[str, Any]]:
    """Yield the records of one table, rank by rank."""
    for rank in trace.ranks:
        yield from _rank_records(rank, table, with_rank=len(trace.ranks) > 1)


def _rank_records(rank: RankTrace, table: str, *, with_rank: bool) -> Iterator[dict[str, Any]]:
    columns = rank.table(table).table.columns
    texts = {column.name for column in columns if column.kind == "string"}
    for row in rank.table(table).rows():
        record: dict[str, Any] = {"rank": rank.rank} if with_rank else {}
        for name, value in row.items():
            record[name] = rank.strings[value] if name in texts and value is not None else value
        yield record
