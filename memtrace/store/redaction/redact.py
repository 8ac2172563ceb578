"""A trace without what tells on a person, so that everything made of it tells nothing either.

In: a `Trace`. Out: the same events, blocks, steps and owners, with other texts. Figures do not change by it:
libraries and the program's own lines stay apart.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace

import numpy as np

from memtrace.printable import escaped
from memtrace.schema.redaction import HIDDEN, UNNAMED, Redaction, numbered_file
from memtrace.store.columns import NULL, ColumnTable, IntArray
from memtrace.store.redaction.file_names import file_name
from memtrace.store.redaction.headers import rank_header, trace_header
from memtrace.store.redaction.texts import Texts, words_of
from memtrace.store.strings import StringTable
from memtrace.store.trace import LoadWarning, RankTrace, Trace

_SENTENCES = frozenset({("warnings", "message"), ("phases", "detail"), ("keepers", "keeper")})
_TABLES_OF_PLACES = ("frames", "keepers")
"""Tables with the files and lines of a program."""


def redacted(trace: Trace, redaction: Redaction, *, name: str = UNNAMED) -> Trace:
    """Return a trace without what is not to be seen; under `SOURCE` its files have names that only an analysis needs.

    `name` is what it is called then. What is found in it passes `without_places`; a trace that is to be written is
    made by `shareable`.
    """
    if redaction is Redaction.NOTHING:
        return trace
    texts = texts_of(trace, redaction)
    ranks = tuple(_redacted_rank(rank, texts) for rank in trace.ranks)
    warnings = _redacted_warnings(without_names(trace.warnings, [trace.path]), texts)
    return replace(trace, header=trace_header(trace.header, texts), ranks=ranks, path=name, warnings=warnings)


def shareable(trace: Trace, redaction: Redaction) -> Trace:
    """Return a trace as it may be written: without what is not to be seen, and with its hidden files numbered."""
    trace = redacted(trace, redaction)
    return _with_numbered_files(trace) if redaction is Redaction.SOURCE else trace


def redacted_warnings(
    warnings: Iterable[LoadWarning],
    redaction: Redaction,
    *,
    names: Iterable[str] = (),
    hosts: Iterable[str] = (),
    paths: Iterable[str] = (),
) -> list[LoadWarning]:
    """Return warnings without what is not to be seen: `names` of files, `hosts`, and the users of `paths`."""
    if redaction is Redaction.NOTHING:
        return list(warnings)
    texts = Texts(redaction=redaction, file_name=file_name(redaction), words=words_of(hosts, paths))
    return list(_redacted_warnings(without_names(warnings, names), texts))


def without_names(warnings: Iterable[LoadWarning], names: Iterable[str]) -> list[LoadWarning]:
    """Return warnings in which no file is called as it was named."""
    longest_first = sorted({one for name in names for one in (name, escaped(name))}, key=len, reverse=True)
    return [replace(one, message=_without(one.message, longest_first)) for one in warnings]


def _without(message: str, names: Iterable[str]) -> str:
    for name in names:
        message = message.replace(name, HIDDEN)
    return message


def texts_of(trace: Trace, redaction: Redaction) -> Texts:
    """Return what takes out of texts what is not to be seen, knowing the hosts and paths of a trace."""
    files = {file for rank in trace.ranks for file in _files(rank)}
    paths = files | {str(rank.header.get("original_path") or "") for rank in trace.ranks}
    hosts = [str(rank.header["host"]) for rank in trace.ranks if rank.header.get("host")]
    return Texts(
        redaction=redaction,
        file_name=file_name(redaction),
        words=words_of(hosts, [*paths, *map(str, trace.header.get("command") or ())]),
        spaced_files=tuple(sorted(file for file in files if " " in file)),
    )


def _with_numbered_files(trace: Trace) -> Trace:
    """Return the trace with hidden files and their lines counted: which places are the same stays to be seen."""
    names: dict[str, str] = {}
    for file in dict.fromkeys(file for rank in trace.ranks for file in _files(rank)):
        name = numbered_file(file, len(names) + 1)
        if name != file:
            names[file] = name
    return replace(trace, ranks=tuple(_with_names(rank, names) for rank in trace.ranks))


def _with_names(rank: RankTrace, names: Mapping[str, str]) -> RankTrace:
    hidden = [at for at, text in enumerate(rank.strings) if text in names]
    tables = {name: rank.table(name) for name in _TABLES_OF_PLACES}
    lines = {name: table["line"].copy() for name, table in tables.items()}
    for file in hidden:
        rows = {name: (table["file"] == file) & (lines[name] != NULL) for name, table in tables.items()}
        known = np.unique(np.concatenate([lines[name][rows[name]] for name in tables]))
        for name in tables:
            lines[name][rows[name]] = np.searchsorted(known, lines[name][rows[name]]) + 1
    return replace(
        rank,
        strings=tuple(names.get(text, text) for text in rank.strings),
        tables={**rank.tables, **{name: _with_column(table, "line", lines[name]) for name, table in tables.items()}},
    )


def _redacted_rank(rank: RankTrace, texts: Texts) -> RankTrace:
    """Return a rank with other texts; one that no column refers to is left out."""
    reading: dict[int, Callable[[str], str]] = {}
    for table, column, values in _text_columns(rank):
        how = _reading(table, column, texts)
        for at in _used(values):
            # A text may stand in several columns: as a file it says most.
            if at not in reading or how == texts.file_name:
                reading[at] = how
    strings = StringTable()
    new_id = np.full(len(rank.strings), NULL, np.int64)
    for at in sorted(reading):
        new_id[at] = strings.id(reading[at](rank.strings[at]))
    tables = dict(rank.tables)
    for table, column, values in _text_columns(rank):
        changed = values.copy()
        changed[values != NULL] = new_id[values[values != NULL]]
        tables[table] = _with_column(tables[table], column, changed)
    return replace(
        rank,
        header=rank_header(rank.header, texts),
        strings=strings.texts(),
        tables=tables,
        warnings=_redacted_warnings(rank.warnings, texts),
    )


def _reading(table: str, column: str, texts: Texts) -> Callable[[str], str]:
    """Return how the texts of a column are read."""
    if table in _TABLES_OF_PLACES and column == "file":
        return texts.file_name
    if (table, column) == ("optimizers", "options"):
        return texts.settings
    return texts.sentence if (table, column) in _SENTENCES else texts.name


def _redacted_warnings(warnings: Iterable[LoadWarning], texts: Texts) -> tuple[LoadWarning, ...]:
    return tuple(replace(one, message=texts.sentence(one.message)) for one in warnings)


def _files(rank: RankTrace) -> Iterator[str]:
    return (rank.strings[at] for table in _TABLES_OF_PLACES for at in _used(rank.table(table)["file"]))


def _text_columns(rank: RankTrace) -> Iterator[tuple[str, str, IntArray]]:
    """Yield table, column and ids of every column of texts."""
    for name, table in rank.tables.items():
        for column in table.table.columns:
            if column.kind == "string":
                yield name, column.name, table[column.name]


def _used(ids: IntArray) -> list[int]:
    return [int(at) for at in np.unique(ids) if at != NULL]


def _with_column(table: ColumnTable, column: str, values: IntArray) -> ColumnTable:
    return ColumnTable(table.table, {**table.columns, column: values})
