"""The last act of every reader: columns, strings and warnings become a frozen `RankTrace`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from memtrace.schema.tables import TABLES, WARNINGS, Table
from memtrace.store.columns import ColumnTable, dtype_of
from memtrace.store.strings import StringTable
from memtrace.store.trace import LoadWarning, RankTrace


def build_rank(
    *,
    header: Mapping[str, Any],
    strings: StringTable,
    tables: Mapping[str, ColumnTable],
    warnings: Sequence[LoadWarning] = (),
) -> RankTrace:
    """Return the trace of one process; tables that are not given are empty, `warnings` fills the table of that name."""
    rows = [(strings.id(one.slug), strings.id(one.message), one.count) for one in warnings]
    filled = {**tables, WARNINGS.name: table_of_rows(WARNINGS, rows)}
    return RankTrace(
        header=header,
        strings=strings.texts(),
        tables={
            table.name: filled[table.name] if table.name in filled else ColumnTable.empty(table) for table in TABLES
        },
        warnings=tuple(warnings),
    )


def table_of_rows(table: Table, rows: Sequence[Sequence[int]]) -> ColumnTable:
    """Return a small table from rows in the order of its columns; nulls are `NULL`, strings ids."""
    return ColumnTable(
        table,
        {column.name: np.array([row[at] for row in rows], dtype_of(column)) for at, column in enumerate(table.columns)},
    )


def concatenated(table: Table, pieces: Sequence[Mapping[str, Any]]) -> ColumnTable:
    """Return a table from pieces that hold its columns."""
    if not pieces:
        return ColumnTable.empty(table)
    names = table.column_names()
    if len(pieces) == 1:
        return ColumnTable(table, {name: pieces[0][name] for name in names})
    return ColumnTable(table, {name: np.concatenate([piece[name] for piece in pieces]) for name in names})
