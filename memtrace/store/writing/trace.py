"""Writing a trace: one JSON document, atomically; the same trace gives the same bytes."""

from __future__ import annotations

import gzip
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

import numpy as np
import orjson

from memtrace.errors import OutputError
from memtrace.printable import encodable
from memtrace.schema.version import TRACE_FORMAT, TRACE_VERSION
from memtrace.store.columns import NULL, Array, ColumnTable, IntArray
from memtrace.store.strings import StringTable
from memtrace.store.trace import RankTrace, Trace
from memtrace.whole_files import write_whole


def write_trace(trace: Trace, path: Path) -> None:
    """Write a trace, compressed if the name ends in .gz. A reader sees the whole file or none of it.

    It is readable by its owner alone: it holds paths and arguments, and sharing it is for its owner to decide.

    Raises:
        OutputError: it cannot be written; nothing is left behind.
    """
    content = trace_bytes(trace)
    try:
        write_whole(path, lambda file: _write_content(file, content, compress=path.suffix == ".gz"), private=True)
    except OSError as error:
        raise OutputError(f"{path}: cannot be written: {error.strerror or error}", slug="output-unwritable") from None


def trace_bytes(trace: Trace) -> bytes:
    """Return the JSON document of a trace, before compression."""
    strings = StringTable()
    ranks = [_rank_document(rank, strings) for rank in trace.ranks]
    noted = [asdict(warning) for warning in trace.warnings]
    return orjson.dumps(
        {
            "format": TRACE_FORMAT,
            "version": TRACE_VERSION,
            "header": _header({**trace.header, **({"warnings": noted} if noted else {})}),
            "strings": list(strings.texts()),
            "ranks": ranks,
        }
    )


def _write_content(file: IO[bytes], content: bytes, *, compress: bool) -> None:
    if compress:
        # No name and no time in the gzip header: the same trace must give the same bytes.
        with gzip.GzipFile(filename="", mode="wb", fileobj=file, compresslevel=6, mtime=0) as packed:
            packed.write(content)
    else:
        file.write(content)


def _rank_document(rank: RankTrace, strings: StringTable) -> dict[str, Any]:
    new_ids = _new_ids(rank, strings)
    tables = {name: _columns(table, new_ids) for name, table in rank.tables.items() if len(table)}
    return {"header": _header(rank.header), "tables": tables}


def _header(header: Mapping[str, Any]) -> orjson.Fragment:
    option = orjson.OPT_SORT_KEYS | orjson.OPT_NON_STR_KEYS
    return orjson.Fragment(orjson.dumps(_encodable(dict(header)), option=option))


def _encodable(value: Any) -> Any:
    """Return a value of a header with lone surrogates replaced: pickles can hold them, JSON cannot."""
    if isinstance(value, str):
        return encodable(value)
    if isinstance(value, Mapping):
        return {_encodable(key): _encodable(one) for key, one in value.items()}
    return [_encodable(one) for one in value] if isinstance(value, (list, tuple)) else value


def _new_ids(rank: RankTrace, strings: StringTable) -> IntArray:
    """Return, for each string of a rank, its id in the file; strings that no column uses get none."""
    is_used = np.zeros(len(rank.strings), np.bool_)
    for table in rank.tables.values():
        for column in table.table.columns:
            if column.kind == "string":
                values = table[column.name]
                is_used[values[values != NULL]] = True
    new_ids = np.full(len(rank.strings), NULL, np.int64)
    used = np.flatnonzero(is_used)
    new_ids[used] = [strings.id(rank.strings[number]) for number in used.tolist()]
    return new_ids


def _columns(table: ColumnTable, new_ids: IntArray) -> dict[str, orjson.Fragment]:
    columns: dict[str, orjson.Fragment] = {}
    for column in table.table.columns:
        values = table[column.name]
        if column.kind == "string":
            known = values != NULL
            renamed = np.full(len(values), NULL, np.int64)
            renamed[known] = new_ids[values[known]]
            values = renamed
        columns[column.name] = orjson.Fragment(_json_list(values))
    return columns


def _json_list(values: Array) -> bytes:
    """Return a column as JSON, nulls as `null`."""
    if values.dtype == np.bool_:
        return orjson.dumps(values.tolist())
    is_null = values == NULL
    if not is_null.any():
        return orjson.dumps(np.ascontiguousarray(values), option=orjson.OPT_SERIALIZE_NUMPY)
    if is_null.all():
        return b"[" + b",".join([b"null"] * len(values)) + b"]"
    objects = values.astype(object)
    objects[is_null] = None
    return orjson.dumps(objects.tolist())
