"""Recordings in a few lines: torch snapshots, traces and parts, made by hand so that a test can derive what it expects.

snapshot().alloc(0x1000, 512).free(0x1000).build()
rank_trace(events=[{"action": "alloc", "address": 1, "size_bytes": 512}])
parts(folder).header().chunk([("alloc", 0x1000, 512)]).end()
"""

from __future__ import annotations

import json
import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from memtrace.schema.records import CHUNK_INFIX, SNAPSHOT_SUFFIX
from memtrace.schema.tables import TABLES, Column, Table
from memtrace.schema.version import PART_FORMAT, TRACE_VERSION
from memtrace.store.build import build_rank
from memtrace.store.columns import NULL, ColumnTable, dtype_of
from memtrace.store.strings import StringTable
from memtrace.store.trace import LoadWarning, RankTrace, Trace

START_US = 1_700_000_000_000_000
"""Unix time of the first event of a built snapshot."""

Frame = tuple[str, int, str]
Event = tuple[str, int, int]
"""Action, address, size."""


class SnapshotBuilder:
    """A torch memory snapshot. Every address gets a segment of its own, so that the snapshot is physically possible."""

    def __init__(self) -> None:
        self._events: dict[int, list[dict[str, Any]]] = {}
        self._live: dict[tuple[int, int], tuple[int, list[dict[str, Any]]]] = {}
        self._extent: dict[tuple[int, int], int] = {}
        self._annotations: list[dict[str, Any]] = []
        self._time_us = START_US
        self._shared_frames: dict[tuple[Frame, ...], list[dict[str, Any]]] = {}
        self.fields: dict[str, Any] = {"allocator_settings": {"PYTORCH_CUDA_ALLOC_CONF": ""}}
        """Further top-level fields."""

    def live_before(self, address: int, size: int, *, device: int = 0) -> SnapshotBuilder:
        """Add a block that was allocated before the history began."""
        self._live[device, address] = (size, [])
        self._reach(device, address, size)
        return self

    def alloc(self, address: int, size: int, *, frames: Sequence[Frame] = (), device: int = 0) -> SnapshotBuilder:
        """Add an alloc event; frames are (file, line, function), innermost first."""
        shared = self._frames(frames)
        self._event("alloc", address, size, device, frames=shared)
        self._live[device, address] = (size, shared)
        self._reach(device, address, size)
        return self

    def free(self, address: int, *, device: int = 0) -> SnapshotBuilder:
        """Add free_requested and free_completed of a live block."""
        size, frames = self._live.pop((device, address))
        self._event("free_requested", address, size, device, frames=frames)
        self._event("free_completed", address, size, device, frames=frames)
        return self

    def oom(self, size: int, *, device_free: int, device: int = 0) -> SnapshotBuilder:
        """Add an out-of-memory."""
        event = {"action": "oom", "size": size, "stream": 0, "time_us": self._tick(), "device_free": device_free}
        self._events.setdefault(device, []).append({**event, "frames": []})
        return self

    def annotate(self, name: str, stage: str, *, device: int = 0) -> SnapshotBuilder:
        """Add the START or END of a named range."""
        self._annotations.append({"name": name, "stage": stage, "device": device, "time_us": self._tick()})
        return self

    def build(self) -> dict[str, Any]:
        """Return the snapshot."""
        devices = max([*self._events, *(device for device, _ in self._extent)], default=-1) + 1
        return {
            "segments": [self._segment(*key) for key in sorted(self._extent)],
            "device_traces": [list(self._events.get(device, [])) for device in range(devices)],
            "external_annotations": list(self._annotations),
            **self.fields,
        }

    def write(self, path: Path) -> Path:
        """Write the snapshot as torch does, and return the path."""
        path.write_bytes(pickle.dumps(self.build(), protocol=4))
        return path

    def clear_history(self) -> SnapshotBuilder:
        """Forget the events, as torch does with clear_history=True; blocks stay."""
        self._events = {}
        return self

    def _event(self, action: str, address: int, size: int, device: int, *, frames: list[dict[str, Any]]) -> None:
        event = {"action": action, "addr": address, "size": size, "stream": 0, "time_us": self._tick()}
        self._events.setdefault(device, []).append({**event, "frames": frames})

    def _tick(self) -> int:
        self._time_us += 10
        return self._time_us

    def _frames(self, frames: Sequence[Frame]) -> list[dict[str, Any]]:
        # torch hands out the same list for the same stack.
        built = [{"filename": file, "line": line, "name": function} for file, line, function in frames]
        return self._shared_frames.setdefault(tuple(frames), built)

    def _reach(self, device: int, address: int, size: int) -> None:
        whole = -(-size // 512) * 512
        self._extent[device, address] = max(self._extent.get((device, address), 0), whole)

    def _segment(self, device: int, address: int) -> dict[str, Any]:
        total = self._extent[device, address]
        size, frames = self._live.get((device, address), (0, []))
        is_live = (device, address) in self._live
        block = {
            "address": address,
            "size": total,
            "requested_size": size,
            "state": "active_allocated" if is_live else "inactive",
            "frames": frames,
        }
        return {
            "device": device,
            "address": address,
            "total_size": total,
            "allocated_size": total if is_live else 0,
            "active_size": total if is_live else 0,
            "requested_size": size,
            "stream": 0,
            "segment_type": "small" if total <= 2**20 else "large",
            "segment_pool_id": (0, 0),
            "is_expandable": False,
            "frames": [],
            "blocks": [block],
        }


def snapshot() -> SnapshotBuilder:
    """Return an empty snapshot to add to."""
    return SnapshotBuilder()


def rank_trace(
    header: dict[str, Any] | None = None, *, warnings: Sequence[LoadWarning] = (), **rows: Sequence[dict[str, Any]]
) -> RankTrace:
    """Return a trace from rows by table name, strings as texts. What a row leaves out is null, 0 or "".

    Events without a time get one a microsecond; without windows all events are one window that begins with nothing.
    """
    rows = {name: [dict(row) for row in values] for name, values in rows.items()}
    for at, event in enumerate(rows.get("events", ())):
        event.setdefault("time_ns", 1000 * (START_US + at))
        event.setdefault("device", "cuda:0")
    if rows.get("events") and "windows" not in rows:
        times = [event["time_ns"] for event in rows["events"]]
        window = {"start_ns": times[0], "end_ns": times[-1], "num_events": len(times), "reason": "start"}
        rows["windows"] = [{**window, "initial_bytes": 0, "num_lost": 0}]
    strings = StringTable()
    tables = {table.name: _table(table, rows.get(table.name, ()), strings) for table in TABLES}
    return build_rank(
        header={"source": "recorded", "complete": True, "devices": [], **(header or {})},
        strings=strings,
        tables=tables,
        warnings=warnings,
    )


def trace_of(*ranks: RankTrace) -> Trace:
    """Return a trace of these ranks."""
    return Trace(header={"memtrace": "0"}, ranks=ranks, path="built")


def contents(rank: RankTrace) -> dict[str, Any]:
    """Return everything in a rank as plain values, so that two can be compared whatever the ids of their strings."""
    texts = {table.name: {column.name for column in table.columns if column.kind == "string"} for table in TABLES}
    return {
        "header": dict(rank.header),
        "warnings": [(one.slug, one.message, one.count) for one in rank.warnings],
        **{
            name: [
                {
                    key: rank.strings[value] if key in texts[name] and value is not None else value
                    for key, value in row.items()
                }
                for row in table.rows()
            ]
            for name, table in rank.tables.items()
        },
    }


def _table(table: Table, rows: Sequence[dict[str, Any]], strings: StringTable) -> ColumnTable:
    unknown = {name for row in rows for name in row} - set(table.column_names())
    assert not unknown, f"no such columns in {table.name}: {unknown}"
    return ColumnTable(
        table,
        {
            column.name: np.array([_cell(column, row.get(column.name), strings) for row in rows], dtype_of(column))
            for column in table.columns
        },
    )


def _cell(column: Column, value: Any, strings: StringTable) -> int:
    if value is None and column.nullable:
        return NULL
    if column.kind == "string":
        return strings.id(value or "")
    return value or 0


class PartsBuilder:
    """What one recorded process leaves in a folder of parts."""

    def __init__(self, folder: Path, name: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.name = folder, name
        self.main = folder / f"{name}.jsonl"
        self._num_chunks = 0

    def header(self, **fields: Any) -> PartsBuilder:
        """Write the header record."""
        facts = {"format": PART_FORMAT, "version": TRACE_VERSION, "source": "recorded", "pid": 7, "rank": None}
        return self.record("header", **{**facts, **fields})

    def record(self, kind: str, /, **fields: Any) -> PartsBuilder:
        """Append any record to the main part."""
        with self.main.open("a") as file:
            file.write(json.dumps({"k": kind, **fields}) + "\n")
        return self

    def end(self) -> PartsBuilder:
        """Write the end record."""
        return self.record("end", end_ns=1000 * START_US, complete=True)

    def chunk(
        self,
        events: Sequence[tuple[str, int, int]] = (),
        *,
        owners: Sequence[tuple[int, int, str]] = (),
        start_ns: int = 1000 * START_US,
        whole: bool = True,
        **facts: Any,
    ) -> PartsBuilder:
        """Write a chunk of CPU events (action, address, size), one a microsecond, and owners (address, size, name)."""
        strings = ["alloc", "free_completed", "cpu", "parameter", *(name for _, _, name in owners)]
        chunk = {"k": "chunk", "number": self._num_chunks, "step": 0, "reason": "start", "source": "cpu_profiler"}
        lines: list[dict[str, Any]] = [
            {**chunk, "start_ns": start_ns, "end_ns": start_ns + 10**6, "initial_bytes": 0, "num_lost": 0, **facts},
            {"k": "strings", "values": strings},
        ]
        if events:
            lines.append(
                {
                    "k": "events",
                    "columns": {
                        "time_ns": [start_ns + 1000 * at for at in range(len(events))],
                        "action": [strings.index(action) for action, _, _ in events],
                        "device": 2,
                        "address": [address for _, address, _ in events],
                        "size_bytes": [size for _, _, size in events],
                        "stream": 0,
                        "stack": None,
                    },
                }
            )
        if owners:
            lines.append(
                {
                    "k": "owners",
                    "columns": {
                        "time_ns": start_ns,
                        "step": 0,
                        "device": 2,
                        "address": [address for address, _, _ in owners],
                        "size_bytes": [size for _, size, _ in owners],
                        "tensor_bytes": [size for _, size, _ in owners],
                        "category": 3,
                        "name": list(range(4, 4 + len(owners))),
                    },
                }
            )
        return self.raw_chunk([*lines, *([{"k": "chunk_end"}] if whole else [])])

    def native_chunk(self, dump: SnapshotBuilder, **facts: Any) -> PartsBuilder:
        """Write a chunk whose events are in a snapshot beside it."""
        dump.write(self.folder / f"{self.name}{CHUNK_INFIX}{self._num_chunks:06d}{SNAPSHOT_SUFFIX}")
        return self.chunk(source="torch_snapshot", **{"continues": True, **facts})

    def raw_chunk(self, lines: Sequence[dict[str, Any]]) -> PartsBuilder:
        """Write a chunk from records."""
        path = self.folder / f"{self.name}{CHUNK_INFIX}{self._num_chunks:06d}.jsonl"
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
        self._num_chunks += 1
        return self

    def drop_chunk(self) -> PartsBuilder:
        """Leave out a number, as a rolling window does."""
        self._num_chunks += 1
        return self


def parts(folder: Path, name: str = "process-host-7-0000") -> PartsBuilder:
    """Return the parts of one process, to add to."""
    return PartsBuilder(folder, name)
