"""Traces for tests in a few lines: one rank, events as tuples, everything else as rows of the schema's tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from memtrace.schema.tables import TABLES, Table
from memtrace.store.columns import NULL, ColumnTable, dtype_of
from memtrace.store.trace import LoadWarning, RankTrace, Trace

Event = tuple[str, int | None, int]
"""Action, address, size. The time of event number i is 10 * (i + 1)."""


def event_rows(events: Sequence[Event], *, device: str = "cpu", **common: Any) -> list[dict[str, Any]]:
    """Return rows of the events table."""
    return [
        {"time_ns": 10 * (at + 1), "action": action, "device": device, "address": address, "size_bytes": size}
        | {"stream": 0, "stack": None, "total_bytes": None, "device_free_bytes": None}
        | common
        for at, (action, address, size) in enumerate(events)
    ]


def window(
    first: int, count: int, *, initial: int | None = None, continues: bool = False, lost: int = 0
) -> dict[str, Any]:
    """Return a row of the windows table that starts 5 ns before its first event."""
    return {
        "start_ns": 10 * (first + 1) - 5,
        "end_ns": 10 * (first + count),
        "first_event": first,
        "num_events": count,
        "initial_bytes": initial,
        "num_lost": lost,
        "reason": "start",
        "continues": continues,
    }


def initial_block(address: int, size: int, *, window: int = 0, device: str = "cpu") -> dict[str, Any]:
    """Return a row of the initial_blocks table."""
    return {"window": window, "device": device, "address": address, "size_bytes": size, "stack": None}


def step(number: int, start: int, end: int | None, *, recorded: bool = True, **more: Any) -> dict[str, Any]:
    """Return a row of the steps table."""
    unknown = ("device_used_bytes", "reserved_bytes", "allocated_bytes", "host_rss_bytes", "num_device_mallocs")
    unknown = (*unknown, "recording_ns", "high_water_bytes", "peak_host_rss_bytes")
    row = {"step": number, "start_ns": start, "end_ns": end, "skipped": False, "recorded": recorded}
    return row | {"num_microbatches": 1 if number else 0} | dict.fromkeys(unknown) | more


def phase(name: str, number: int, start: int, end: int | None) -> dict[str, Any]:
    """Return a row of the phases table."""
    return {"phase": name, "step": number, "microbatch": 0, "start_ns": start, "end_ns": end, "detail": None}


def scope(module: str, start: int, end: int) -> dict[str, Any]:
    """Return a row of the scopes table."""
    row = {"module": module, "class_name": "Module", "start_ns": start, "end_ns": end}
    return row | {"step": 1, "recompute": False}


def owner(time: int, address: int, size: int, category: str, *, device: str = "cpu") -> dict[str, Any]:
    """Return a row of the owners table."""
    row = {"time_ns": time, "step": 1, "device": device, "address": address, "size_bytes": size, "tensor_bytes": size}
    row |= {"category": category, "name": "x", "dtype": None, "shape": None}
    return row | {"global_shape": None, "placement": None}


def saved(time: int, address: int, size: int, *, device: str = "cpu") -> dict[str, Any]:
    """Return a row of the saved table."""
    row = {"time_ns": time, "step": 1, "microbatch": 0, "device": device, "address": address, "size_bytes": size}
    return row | {"op": "AddmmBackward0", "dtype": None, "shape": None}


def segment(address: int, total: int, allocated: int, *, device: str = "cuda:0") -> dict[str, Any]:
    """Return a row of the segments table."""
    row = {"device": device, "address": address, "total_bytes": total, "allocated_bytes": allocated}
    row |= {"active_bytes": allocated, "requested_bytes": allocated, "stream": 0, "segment_type": "large"}
    return row | {"pool_id": "0,0", "is_expandable": False, "stack": None}


def block(segment: int, address: int, size: int, state: str) -> dict[str, Any]:
    """Return a row of the blocks table."""
    row = {"segment": segment, "address": address, "size_bytes": size, "requested_bytes": size}
    return row | {"state": state, "stack": None}


def rank_trace(
    *, source: str = "recorded", header: Mapping[str, Any] | None = None, **tables: Sequence[Mapping[str, Any]]
) -> RankTrace:
    """Return a rank with these tables; string columns are given as texts."""
    strings: dict[str, int] = {}
    built = {table.name: _table(table, tables.get(table.name, ()), strings) for table in TABLES}
    header = {"source": source, "rank": None, "complete": True, "devices": []} | dict(header or {})
    return RankTrace(header=header, strings=tuple(strings), tables=built)


def trace(*ranks: RankTrace, warnings: Sequence[LoadWarning] = ()) -> Trace:
    """Return a run of these ranks."""
    return Trace(header={}, ranks=ranks, path="small", warnings=tuple(warnings))


def _table(table: Table, rows: Sequence[Mapping[str, Any]], strings: dict[str, int]) -> ColumnTable:
    columns = {}
    for column in table.columns:
        values = [row[column.name] for row in rows]
        if column.kind == "string":
            values = [None if text is None else strings.setdefault(text, len(strings)) for text in values]
        columns[column.name] = np.array([NULL if value is None else value for value in values], dtype_of(column))
    return ColumnTable(table, columns)
