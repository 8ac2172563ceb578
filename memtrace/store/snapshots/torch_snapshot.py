"""torch's memory snapshots (`torch.cuda.memory._dump_snapshot`, and their XPU and HIP forms) as tables.

In: the plain dict of a snapshot. Out: a `RankTrace`, or, for a recording that holds several, `SnapshotTables`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any

import numpy as np

from memtrace.errors import TraceReadError
from memtrace.schema.names import Source
from memtrace.schema.tables import ANNOTATIONS, EVENTS, INITIAL_BLOCKS, WINDOWS
from memtrace.store.build import build_rank, concatenated, table_of_rows
from memtrace.store.columns import NULL, ColumnTable, check_num_devices
from memtrace.store.snapshots.history import History, SnapshotReading, read_history, times_ns
from memtrace.store.snapshots.packed_events import PackedEvents
from memtrace.store.snapshots.segments import SegmentTables, read_segments
from memtrace.store.stacks import StackTable
from memtrace.store.strings import StringTable
from memtrace.store.trace import RankTrace


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SnapshotTables:
    """What one snapshot holds, its ids those of the trace that is being built."""

    segments: SegmentTables
    histories: tuple[History, ...]
    """One for each device that has events."""
    annotations: ColumnTable
    allocator_settings: dict[str, Any]


def read_snapshot(data: Any, *, where: str) -> RankTrace:
    """Return the trace that a snapshot holds.

    Raises:
        TraceReadError: the value is not a snapshot.
    """
    strings = StringTable()
    reading = SnapshotReading(kind="cuda", strings=strings, stacks=StackTable(strings))
    snapshot = read_snapshot_tables(data, reading, where=where)
    if all(history.is_stray for history in snapshot.histories):
        reading.warn("no-history", "The snapshot holds no history of allocations: only its last moment is known.")
    windows, initial_blocks = _windows(strings, snapshot.histories)
    tables = {
        EVENTS.name: concatenated(EVENTS, [history.columns for history in snapshot.histories]),
        WINDOWS.name: windows,
        INITIAL_BLOCKS.name: initial_blocks,
        ANNOTATIONS.name: snapshot.annotations,
        **snapshot.segments.tables,
        **reading.stacks.tables(),
    }
    header = _header(reading, snapshot, windows)
    return build_rank(header=header, strings=strings, tables=tables, warnings=reading.warnings)


def read_snapshot_tables(data: Any, reading: SnapshotReading, *, where: str) -> SnapshotTables:
    """Return the tables of a snapshot. Affects: strings, stacks and warnings of `reading`.

    Raises:
        TraceReadError: the value is not a snapshot, or a damaged one.
    """
    if isinstance(data, list):
        # torch.cuda.memory_snapshot() returns the segments alone.
        data = {"segments": data}
    if not isinstance(data, dict) or "segments" not in data:
        raise TraceReadError(
            f"{where}: not a memory snapshot of torch (no segments in it)",
            hint="write one with torch.cuda.memory._dump_snapshot(path)",
            slug="wrong-kind",
        )
    try:
        return _read_tables(data, reading)
    except TraceReadError as error:
        raise TraceReadError(f"{where}: {error.message}", hint=error.hint, slug=error.slug) from None


def _read_tables(data: Mapping[Any, Any], reading: SnapshotReading) -> SnapshotTables:
    segments = read_segments(data["segments"], reading.strings, reading.stacks, device_name=reading.device_id)
    traces = data.get("device_traces") or []
    if not isinstance(traces, list) or not all(isinstance(one, (list, PackedEvents)) for one in traces):
        raise TraceReadError("device_traces is not a list of lists", slug="file-damaged")
    check_num_devices(sum(map(bool, traces)), where="device_traces")
    return SnapshotTables(
        segments=segments,
        histories=tuple(read_history(reading, segments, index, trace) for index, trace in enumerate(traces) if trace),
        annotations=_annotations(reading, data.get("external_annotations") or []),
        allocator_settings=_format_facts(traces) | _plain_settings(data.get("allocator_settings")),
    )


def _format_facts(traces: list[list[Any] | PackedEvents]) -> dict[str, bool]:
    """Return what the form of the events tells of the version of torch, which no snapshot holds."""
    first = (trace.first_keys if isinstance(trace, PackedEvents) else trace[0] for trace in traces if len(trace))
    entry = next((one for one in first if isinstance(one, (dict, frozenset))), None)
    return {} if entry is None else {"events_name_pool": "pool_id" in entry}


def initial_block_columns(history: History) -> dict[str, Any]:
    """Return the columns of initial_blocks of one device, all but the window."""
    initial = history.initial
    return {
        "device": np.full(len(initial.address), history.device_id, np.int64),
        "address": initial.address,
        "size_bytes": initial.size_bytes,
        "stack": initial.stack,
    }


def _windows(strings: StringTable, histories: Sequence[History]) -> tuple[ColumnTable, ColumnTable]:
    """Return one window for each device that has a history, and the blocks live at its start."""
    rows: list[tuple[int, ...]] = []
    blocks: list[dict[str, Any]] = []
    first_event = 0
    for history in histories:
        time, initial = history.columns["time_ns"], history.initial
        if not history.is_stray:
            reason = strings.id("resume" if len(initial.address) else "start")
            initial_bytes = int(initial.size_bytes.sum())
            window = np.full(len(initial.address), len(rows), np.int64)
            blocks.append({"window": window, **initial_block_columns(history)})
            rows.append((int(time[0]), int(time[-1]), first_event, len(time), initial_bytes, 0, reason, False))
        first_event += len(time)
    return table_of_rows(WINDOWS, rows), concatenated(INITIAL_BLOCKS, blocks)


def _annotations(reading: SnapshotReading, annotations: Any) -> ColumnTable:
    """Return the named ranges: each END is joined to the last open START of its name and device."""
    if not isinstance(annotations, list) or not all(isinstance(one, dict) for one in annotations):
        raise TraceReadError("external_annotations is not a list of dicts", slug="file-damaged")
    times = times_ns([one.get("time_us") for one in annotations], where="external_annotations time_us")
    rows: list[list[int]] = []
    still_open: dict[tuple[int, int], list[list[int]]] = {}
    for one, time in zip(annotations, times.tolist(), strict=True):
        index = one.get("device", 0)
        device = reading.device_id(index) if isinstance(index, int) else NULL
        name = reading.strings.id(one.get("name") or "")
        waiting = still_open.setdefault((name, device), [])
        if one.get("stage") == "START":
            rows.append([name, time, NULL, device])
            waiting.append(rows[-1])
        elif waiting:
            waiting.pop()[2] = time
        else:
            rows.append([name, NULL, time, device])
    return table_of_rows(ANNOTATIONS, rows)


def _header(reading: SnapshotReading, snapshot: SnapshotTables, windows: ColumnTable) -> dict[str, Any]:
    """Return the header facts that a snapshot knows."""
    with_history = {f"{reading.kind}:{history.device}" for history in snapshot.histories}
    names = sorted(with_history | set(snapshot.segments.device_names))
    starts, ends = (windows[name][windows[name] != NULL] for name in ("start_ns", "end_ns"))
    return {
        "source": Source.SNAPSHOT.value,
        "rank": None,
        "start_ns": int(starts.min()) if len(starts) else None,
        "end_ns": int(ends.max()) if len(ends) else None,
        "complete": True,
        "devices": [{"name": name, "capacity_bytes": None, "kind": reading.kind} for name in names],
        "sources": {"events": "torch_snapshot" if len(windows) else None},
        "versions": {},
        "allocator_settings": snapshot.allocator_settings,
    }


def _plain_settings(value: Any) -> dict[str, Any]:
    """Return allocator settings with everything dropped that a header cannot hold."""
    if not isinstance(value, dict):
        return {}
    kept: dict[str, Any] = {}
    for name, setting in value.items():
        if isinstance(setting, dict):
            setting = {str(key): one for key, one in setting.items() if _is_plain(one)}
        if isinstance(name, str) and (setting is None or isinstance(setting, dict) or _is_plain(setting)):
            kept[name] = setting
    return kept


def _is_plain(value: Any) -> bool:
    """Return whether JSON can hold a value of a setting."""
    is_number = (isinstance(value, float) and isfinite(value)) or (isinstance(value, int) and abs(value) < 2**63)
    return is_number or (isinstance(value, str) and value.isprintable())
