"""A folder of parts, as a recording leaves it: every recorded process becomes a `RankTrace`, whatever ended it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from memtrace.errors import TraceReadError, TraceVersionError
from memtrace.printable import escaped
from memtrace.schema.records import CHUNK_INFIX, KINETO_SUFFIX, PART_SUFFIX
from memtrace.schema.tables import ANNOTATIONS, BUCKETS, COLLECTIVES, KERNELS, OPTIMIZERS, STEPS
from memtrace.store.build import build_rank, concatenated
from memtrace.store.columns import NULL, ColumnTable
from memtrace.store.files import Progress, open_file, parse_json
from memtrace.store.header import check_rank_header
from memtrace.store.kineto.profile import read_activities
from memtrace.store.opening import is_within_reach
from memtrace.store.parts.chunk import MARKS, Chunk, read_chunk
from memtrace.store.parts.events import gather_events
from memtrace.store.parts.main_part import buckets_table, optimizers_table, rank_header, read_main, steps_table
from memtrace.store.parts.next_step import bring_to_next_step
from memtrace.store.stacks import StackTable
from memtrace.store.strings import StringTable
from memtrace.store.trace import LoadWarning, RankTrace


def part_names(folder: Path) -> list[str]:
    """Return the names that the files of each recorded process start with, sorted; none if it is no folder of parts."""
    if not is_within_reach(folder):
        return []
    names = (path.name.removesuffix(PART_SUFFIX).partition(CHUNK_INFIX)[0] for path in folder.glob(f"*{PART_SUFFIX}"))
    return sorted(set(names))


def read_parts(folder: Path, *, progress: Progress | None = None) -> tuple[list[RankTrace], list[LoadWarning]]:
    """Return the trace of every process that left a part in a folder, in the order of their names.

    Of a process whose part is damaged there is a warning that names it.

    Raises:
        TraceReadError: not one of them can be read. TraceVersionError: written by a newer memtrace.
    """
    names = part_names(folder)
    ranks: list[RankTrace] = []
    left_out: list[LoadWarning] = []
    first_error: TraceReadError | None = None
    for at, name in enumerate(names):
        if progress is not None:
            progress(f"reading parts of {name}", at, len(names))
        try:
            ranks.append(_read_process(folder, name))
        except TraceVersionError:
            raise
        except TraceReadError as error:
            first_error = first_error or error
            message = f"{name} cannot be read ({escaped(error.message)}) and is left out"
            left_out.append(LoadWarning(slug="file-unreadable", message=message))
    if first_error is not None and not ranks:
        raise first_error
    return ranks, left_out


def _read_process(folder: Path, name: str) -> RankTrace:
    strings = StringTable()
    stacks = StackTable(strings)
    main = read_main(folder / f"{name}{PART_SUFFIX}")
    chunks: list[Chunk] = []
    warnings = list(main.warnings)
    for path in sorted(folder.glob(f"{_escaped(name)}{CHUNK_INFIX}*{PART_SUFFIX}")):
        try:
            chunks.append(read_chunk(path, strings, stacks))
        except TraceReadError as error:
            warnings.append(LoadWarning(slug="chunk-unreadable", message=f"A chunk could not be read: {error.message}"))
    bring_to_next_step(main.steps, chunks)
    warnings += _damage(main.num_damaged, main.num_unknown, chunks)
    complete = main.ended and not any(warning.slug in _INCOMPLETE for warning in warnings)
    header = rank_header(main, complete=complete)
    check_rank_header(header, where=f"{folder / name}{PART_SUFFIX}")
    events = gather_events(chunks, strings, stacks, devices=header["devices"])
    header.setdefault("allocator_settings", events.allocator_settings)
    tables = {
        **events.tables,
        STEPS.name: steps_table(main, strings, chunk_steps={chunk.fact("step") for chunk in chunks}),
        OPTIMIZERS.name: optimizers_table(main, strings),
        BUCKETS.name: buckets_table(main, strings),
        **{
            table.name: concatenated(table, [piece for chunk in chunks for piece in chunk.tables.get(table.name, ())])
            for table in MARKS
        },
        ANNOTATIONS.name: concatenated(
            ANNOTATIONS,
            [
                *(piece for chunk in chunks for piece in chunk.tables.get(ANNOTATIONS.name, ())),
                *events.annotations,
            ],
        ),
        **_activities(chunks, strings, warnings),
        **stacks.tables(),
    }
    header["end_ns"] = _last_time(header, tables)
    return build_rank(header=header, strings=strings, tables=tables, warnings=[*warnings, *events.warnings])


def _activities(chunks: Sequence[Chunk], strings: StringTable, warnings: list[LoadWarning]) -> dict[str, ColumnTable]:
    """Return the activities of the profiles beside chunks. Affects: warnings, of profiles that cannot be read."""
    pieces: list[dict[str, ColumnTable]] = []
    for chunk in chunks:
        path = chunk.path.with_name(chunk.path.name.removesuffix(PART_SUFFIX) + KINETO_SUFFIX)
        if not (is_within_reach(path) and path.exists()):
            continue
        try:
            document = parse_json(open_file(path).content or b"", where=path.name)
            pieces.append(read_activities(document, strings, where=path.name))
        except TraceReadError as error:
            message = f"A profile could not be read: {error.message}"
            warnings.append(LoadWarning(slug="chunk-unreadable", message=message))
    return {
        table.name: concatenated(table, [piece[table.name].columns for piece in pieces])
        for table in (KERNELS, COLLECTIVES)
    }


_INCOMPLETE = frozenset({"chunk-cut-off", "chunk-unreadable", "part-missing"})
"""Warnings after which a recording does not count as complete."""


def _damage(num_damaged: int, num_unknown: int, chunks: Sequence[Chunk]) -> list[LoadWarning]:
    """Return what could not be read in the files of a process."""
    found: list[LoadWarning] = []
    num_cut = sum(not chunk.is_whole for chunk in chunks)
    num_damaged += sum(chunk.num_damaged for chunk in chunks)
    num_unknown += sum(chunk.num_unknown for chunk in chunks)
    for slug, message, count in (
        ("chunk-cut-off", "The process died while it wrote a chunk of events: its end is missing.", num_cut),
        ("lines-damaged", "Lines of the recording could not be read.", num_damaged),
        ("unknown-fields", "The recording holds records or fields that this memtrace does not know.", num_unknown),
    ):
        if count:
            found.append(LoadWarning(slug=slug, message=message, count=count))
    return found


def _last_time(header: Mapping[str, Any], tables: Mapping[str, ColumnTable]) -> int | None:
    """Return the time of the last record: where the end record is missing, the last time in any table."""
    if header.get("end_ns") is not None:
        return int(header["end_ns"])
    times = [
        table[column.name]
        for table in tables.values()
        for column in table.table.columns
        if column.name in ("time_ns", "end_ns", "start_ns")
    ]
    last = max((int(np.max(column)) for column in times if len(column)), default=NULL)
    return None if last == NULL else last


def _escaped(name: str) -> str:
    """Return a name for `glob`, which would take its brackets for a pattern."""
    return "".join(f"[{char}]" if char in "*?[" else char for char in name)
