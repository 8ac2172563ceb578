"""memtrace's own trace file: the parsed JSON document becomes a `Trace`, every column checked against the schema."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from memtrace.errors import TraceReadError, TraceVersionError
from memtrace.printable import escaped
from memtrace.schema.tables import TABLES, WARNINGS, Column, Table
from memtrace.schema.version import TRACE_VERSION
from memtrace.store.columns import (
    NULL,
    Array,
    ColumnTable,
    IntArray,
    check_num_devices,
    check_sizes,
    check_times,
    dtype_of,
    int_column,
)
from memtrace.store.header import check_rank_header, check_trace_header
from memtrace.store.trace import LoadWarning, RankTrace, Trace, rank_left_out


def check_version(version: Any, *, where: str) -> None:
    """Check that this memtrace reads a format version.

    Raises:
        TraceVersionError: it is newer.
        TraceReadError: it is not a version at all.
    """
    if type(version) is not int or version < 1:
        raise TraceReadError(f"{where}: no format version in it", hint="record it again", slug="file-damaged")
    if version > TRACE_VERSION:
        raise TraceVersionError(
            f"{where}: written in format version {version}; this memtrace reads up to version {TRACE_VERSION}",
            hint="install a newer memtrace",
            slug="newer-version",
        )


def read_trace_document(document: Mapping[str, Any], *, where: str) -> Trace:
    """Return the trace in a parsed trace file.

    Raises:
        TraceReadError: damaged. TraceVersionError: newer.
    """
    check_version(document.get("version"), where=where)
    header = _object(document.get("header"), f"{where}: header")
    check_trace_header(header, where=f"{where}: header")
    texts = document.get("strings")
    if not isinstance(texts, list) or not set(map(type, texts)) <= {str}:
        raise TraceReadError(f"{where}: strings is not a list of texts", slug="file-damaged")
    if len(set(texts)) != len(texts):
        raise TraceReadError(f"{where}: strings holds a text twice", slug="file-damaged")
    ranks = document.get("ranks")
    if not isinstance(ranks, list):
        raise TraceReadError(f"{where}: ranks is not a list", slug="file-damaged")
    noted = header.get("warnings") or []
    if not isinstance(noted, list):
        raise TraceReadError(f"{where}: warnings is not a list", slug="file-damaged")
    read, left_out = _read_ranks(ranks, tuple(texts), where)
    return Trace(
        header={name: value for name, value in header.items() if name != "warnings"},
        ranks=tuple(read),
        path=where,
        warnings=(*(_noted(one, where) for one in noted), *left_out),
    )


def _read_ranks(ranks: list[Any], strings: tuple[str, ...], where: str) -> tuple[list[RankTrace], list[LoadWarning]]:
    """Return the ranks of a file, and a warning for each damaged one: it must not cost the others.

    Raises:
        TraceReadError: all of them are damaged.
    """
    read: list[RankTrace] = []
    left_out: list[LoadWarning] = []
    first_error: TraceReadError | None = None
    for at, rank in enumerate(ranks):
        try:
            read.append(_read_rank(rank, strings, f"{where}: ranks[{at}]"))
        except TraceReadError as error:
            first_error = first_error or error
            header = rank.get("header") if isinstance(rank, dict) else None
            number = header.get("rank") if isinstance(header, dict) else None
            left_out.append(rank_left_out(number, at, f"cannot be read ({escaped(error.message)})"))
    if first_error is not None and not read:
        raise first_error
    return read, left_out


def _read_rank(rank: Any, strings: tuple[str, ...], where: str) -> RankTrace:
    fields = _object(rank, where)
    header = _object(fields.get("header"), f"{where} header")
    if not isinstance(header.get("source"), str):
        raise TraceReadError(f"{where} header: no source in it", slug="file-damaged")
    check_rank_header(header, where=f"{where} header")
    raw_tables = _object(fields.get("tables"), f"{where} tables")
    tables = {table.name: _read_table(table, raw_tables.get(table.name), len(strings), where) for table in TABLES}
    _check_rows(tables, where)
    warnings = [
        LoadWarning(slug=strings[row["slug"]], message=strings[row["message"]], count=row["count"])
        for row in tables[WARNINGS.name].rows()
    ]
    num_ignored = _num_unknown(raw_tables)
    if num_ignored:
        message = "The file holds tables or columns that this memtrace does not know; they are ignored."
        warnings.append(LoadWarning(slug="unknown-fields", message=message, count=num_ignored))
    return RankTrace(header=header, strings=strings, tables=tables, warnings=tuple(warnings))


def _read_table(table: Table, raw: Any, num_strings: int, where: str) -> ColumnTable:
    if raw is None:
        return ColumnTable.empty(table)
    columns = _object(raw, f"{where} {table.name}")
    lengths = {len(values) for values in columns.values() if isinstance(values, list)}
    if len(lengths) > 1:
        message = f"{where} {table.name}: columns of unequal length ({min(lengths)} to {max(lengths)})"
        raise TraceReadError(message, slug="file-damaged")
    num_rows = lengths.pop() if lengths else 0
    return ColumnTable(
        table,
        {
            column.name: read_column(
                column, columns.get(column.name), num_rows, num_strings, where=f"{where} {table.name}.{column.name}"
            )
            for column in table.columns
        },
    )


def read_column(column: Column, values: Any, num_rows: int, num_strings: int, *, where: str) -> Array:
    """Return one checked column of a trace file or a part; a nullable one that is missing is all null.

    `values` is a list as JSON has it, or integers that were written as bytes, with `NULL` for null.

    Raises:
        TraceReadError: missing, of a wrong type, or out of range.
    """
    if values is None:
        if num_rows and not column.nullable:
            raise TraceReadError(f"{where}: the column is missing", slug="file-damaged")
        return np.full(num_rows, NULL, dtype_of(column)) if num_rows else np.empty(0, dtype_of(column))
    if not isinstance(values, (list, np.ndarray)):
        raise TraceReadError(f"{where}: not a list", slug="file-damaged")
    if column.kind == "bool":
        if not set(map(type, values)) <= {bool}:
            raise TraceReadError(f"{where}: true or false was expected", slug="file-damaged")
        return np.array(values, np.bool_)
    numbers = values if isinstance(values, np.ndarray) else int_column(values, where=where, nullable=column.nullable)
    _check_range(column, numbers, num_strings, where)
    return numbers


def _check_range(column: Column, numbers: IntArray, num_strings: int, where: str) -> None:
    """Check that string ids exist, that sizes are not negative, and that times are some."""
    if not len(numbers):
        return
    known = numbers[numbers != NULL] if column.nullable else numbers
    if not column.nullable and known.min() == NULL:
        raise TraceReadError(f"{where}: a number that stands for null", slug="file-damaged")
    if not len(known):
        return
    if column.kind == "string" and (known.min() < 0 or known.max() >= num_strings):
        raise TraceReadError(f"{where}: a string id that the file does not have", slug="file-damaged")
    if column.unit == "ns":
        check_times(known, where=where)
    if column.unit == "bytes":
        # A nullable one is a level at many moments, which nobody adds up.
        check_sizes(known.max(keepdims=True) if column.nullable and known.min() >= 0 else known, where=where)


def _check_rows(tables: Mapping[str, ColumnTable], where: str) -> None:
    """Check that columns which point to rows of a table point to rows that exist."""
    for table in tables.values():
        for column in table.table.columns:
            if not column.unit.startswith("row of ") or not len(table):
                continue
            target = tables[column.unit.removeprefix("row of ")]
            rows = table[column.name]
            known = rows[rows != NULL]
            # first_event of an empty window at the end is one past the last row.
            limit = len(target) + (column.name == "first_event")
            if len(known) and (known.min() < 0 or known.max() >= limit):
                message = f"{where} {table.table.name}.{column.name}: a row of {target.table.name} that does not exist"
                raise TraceReadError(message, slug="file-damaged")
    devices = [np.unique(table["device"]) for table in tables.values() if _has_devices(table)]
    check_num_devices(len(np.unique(np.concatenate(devices))), where=where)
    stacks = tables["stacks"]
    if np.any(stacks["parent"] >= np.arange(len(stacks))):
        raise TraceReadError(f"{where} stacks.parent: a stack called by a later one", slug="file-damaged")
    windows = tables["windows"]
    # Not their sum, which may be beyond 64 bits.
    most = len(tables["events"]) - windows["first_event"]
    if np.any((windows["num_events"] < 0) | (windows["num_events"] > most)):
        raise TraceReadError(f"{where} windows: more events than there are", slug="file-damaged")


def _has_devices(table: ColumnTable) -> bool:
    return any(column.name == "device" and column.kind == "string" for column in table.table.columns)


def _num_unknown(raw_tables: Mapping[str, Any]) -> int:
    """Return how many tables and columns of a file the schema does not name."""
    known = {table.name: set(table.column_names()) for table in TABLES}
    return sum(
        1 if name not in known else len(set(columns or ()) - known[name]) for name, columns in raw_tables.items()
    )


def _object(value: Any, where: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise TraceReadError(f"{where} is not an object", slug="file-damaged")
    return value


def _noted(value: Any, where: str) -> LoadWarning:
    fields = _object(value, f"{where}: warnings")
    slug, message, count = fields.get("slug"), fields.get("message"), fields.get("count", 1)
    if not (isinstance(slug, str) and isinstance(message, str) and isinstance(count, int)):
        raise TraceReadError(f"{where}: a warning without slug or message", slug="file-damaged")
    return LoadWarning(slug=slug, message=message, count=count)
