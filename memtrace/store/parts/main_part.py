"""The main part of one recorded process: header facts, steps, optimizers, warnings, and whether it ended in order."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from memtrace.errors import TraceReadError
from memtrace.schema import records
from memtrace.schema.names import Source
from memtrace.schema.records import Record
from memtrace.schema.tables import BUCKETS, OPTIMIZERS, RANK_HEADER, STEPS, Column, Table
from memtrace.store.build import table_of_rows
from memtrace.store.columns import NULL, ColumnTable
from memtrace.store.parts.lines import read_lines
from memtrace.store.strings import StringTable
from memtrace.store.trace import LoadWarning
from memtrace.store.trace_file import check_version

_HEADER_FIELDS = frozenset(one.name for one in RANK_HEADER) - {"devices", "complete"}


@dataclass(slots=True)
class MainPart:
    """What the main part says."""

    header: dict[str, Any] = field(default_factory=dict)
    devices: dict[str, dict[str, Any]] = field(default_factory=dict)
    steps: list[Record] = field(default_factory=list)
    optimizers: list[Record] = field(default_factory=list)
    buckets: list[Record] = field(default_factory=list)
    warnings: list[LoadWarning] = field(default_factory=list)
    ended: bool = False
    """Whether the last record is there: the recording ended in order."""
    num_damaged: int = 0
    num_unknown: int = 0
    """Records of kinds that this memtrace does not know."""


def read_main(path: Path) -> MainPart:
    """Return the main part of a process; an empty one where the file is missing.

    Raises:
        TraceVersionError: written by a newer memtrace.
    """
    main = MainPart()
    if not path.exists():
        main.warnings.append(
            LoadWarning(slug="part-missing", message=f"{path.name} is missing: steps and header facts are unknown.")
        )
        return main
    lines = read_lines(path)
    main.num_damaged = lines.num_damaged
    for record in lines.records:
        _take(main, record, path)
    return main


def _take(main: MainPart, record: Record, path: Path) -> None:
    kind = record["k"]
    if kind == records.HEADER:
        check_version(record.get("version"), where=str(path))
        main.header.update(_known_fields(record))
    elif kind == records.FACTS:
        main.header.update(_known_fields(record))
    elif kind == records.END:
        main.ended = record.get("complete") is not False
        main.header.update(_known_fields(record))
    elif kind == records.DEVICE:
        device = {name: value for name, value in record.items() if name != "k"}
        main.devices[str(device.get("name", "device"))] = device
    elif kind == records.STEP:
        main.steps.append(record)
    elif kind == records.OPTIMIZER:
        main.optimizers.append(record)
    elif kind == records.BUCKET:
        main.buckets.append(record)
    elif kind == records.WARNING:
        _warn(main, record, str(record.get("slug", "warning")))
    elif kind == records.LOST:
        _warn(main, record, str(record.get("slug", "events-lost")))
    else:
        main.num_unknown += 1


def _known_fields(record: Record) -> dict[str, Any]:
    return {name: value for name, value in record.items() if name in _HEADER_FIELDS}


def _warn(main: MainPart, record: Record, slug: str) -> None:
    """Take a warning of the recording; the same one again only raises its count."""
    message = str(record.get("message", "Events were lost while recording."))
    count = record.get("count", 1)
    count = count if isinstance(count, int) and not isinstance(count, bool) and 0 < count < 2**62 else 1
    for at, known in enumerate(main.warnings):
        if (known.slug, known.message) == (slug, message):
            main.warnings[at] = LoadWarning(slug=slug, message=message, count=known.count + count)
            return
    main.warnings.append(LoadWarning(slug=slug, message=message, count=count))


def rank_header(main: MainPart, *, complete: bool) -> dict[str, Any]:
    """Return the header of the process."""
    return {
        **main.header,
        "source": main.header.get("source") or Source.RECORDED.value,
        "devices": [main.devices[name] for name in sorted(main.devices)],
        "complete": complete,
    }


def steps_table(main: MainPart, strings: StringTable, *, chunk_steps: Collection[int | None]) -> ColumnTable:
    """Return the steps; one that was written twice (begun, then ended) counts as written last.

    A step counts as recorded only where a chunk of it is left: the rolling window drops those of earlier steps.
    """
    by_step: dict[int, Record] = {}
    for record in main.steps:
        number = _number(record.get("step"), "step")
        merged = {**by_step.get(number, {}), **record}
        by_step[number] = {**merged, "recorded": bool(merged.get("recorded")) and number in chunk_steps}
    return _table(STEPS, [by_step[number] for number in sorted(by_step)], strings)


def optimizers_table(main: MainPart, strings: StringTable) -> ColumnTable:
    """Return the parameter groups; a group that was described again counts as described last."""
    columns = [column for column in OPTIMIZERS.columns if column.name in ("optimizer", "class_name", "group")]
    by_group: dict[tuple[int, ...], Record] = {}
    for record in main.optimizers:
        by_group[tuple(_cell(column, record, strings) for column in columns)] = record
    return _table(OPTIMIZERS, list(by_group.values()), strings)


def buckets_table(main: MainPart, strings: StringTable) -> ColumnTable:
    """Return the buckets of replicated models, each time that they were read anew."""
    return _table(BUCKETS, main.buckets, strings)


def _table(table: Table, rows: list[Record], strings: StringTable) -> ColumnTable:
    return table_of_rows(table, [[_cell(column, row, strings) for column in table.columns] for row in rows])


def _cell(column: Column, row: Mapping[str, Any], strings: StringTable) -> int:
    value = row.get(column.name)
    if column.kind == "string":
        return strings.id(value) if isinstance(value, str) else NULL if column.nullable else strings.id("")
    if column.kind == "bool":
        return bool(value)
    if value is None and column.nullable:
        return NULL
    return _number(value, column.name)


def _number(value: Any, name: str) -> int:
    """Return an integer of a record; what is none is 0, since one odd field must not cost the whole recording."""
    if isinstance(value, int) and -(2**63) < value < 2**63:
        return int(value)
    if value is None:
        return 0
    message = f"{name}: a number was expected in a record where {type(value).__name__} stands"
    raise TraceReadError(message, slug="file-damaged")
