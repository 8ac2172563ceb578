"""A rank as a memory snapshot of torch: what `torch.cuda.memory._dump_snapshot` would have written.

In: a rank. Out: a pickle (protocol 4, plain data) that torch's memory_viz and its command line open. Host memory has no
segments: its events make up a history of device 0, if there is no other device.
"""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np

from memtrace.errors import TraceReadError
from memtrace.schema.names import Action
from memtrace.store.columns import NULL, ColumnTable, IntArray
from memtrace.store.trace import RankTrace, Trace

_PROTOCOL = 4
"""What memory_viz.js can read."""
_HISTORY = frozenset(Action) - {Action.ANNOTATE}


def snapshot_pickle(trace: Trace, *, rank: int | None = None) -> bytes:
    """Return the snapshot of one rank: the one of this number, or the only one.

    Raises:
        TraceReadError: there is no such rank, or there are several and none was named.
    """
    found = [one for one in trace.ranks if rank is None or one.rank == rank]
    if len(found) != 1:
        names = ", ".join("none" if one.rank is None else str(one.rank) for one in trace.ranks)
        what = "several ranks, and a snapshot holds one" if rank is None else f"no rank {rank}"
        raise TraceReadError(f"{trace.path}: {what}", hint=f"name one with --rank; the trace has: {names}")
    return pickle.dumps(snapshot_of(found[0]), protocol=_PROTOCOL)


def snapshot_of(rank: RankTrace) -> dict[str, Any]:
    """Return the snapshot of one rank as plain data."""
    frames = _Stacks(rank)
    devices = _devices(rank)
    histories: list[list[dict[str, Any]]] = [[] for _ in range(max(devices.values(), default=-1) + 1)]
    for name, index in devices.items():
        histories[index] = _history(rank, rank.string_id(name), frames)
    return {
        "segments": _segments(rank, devices, frames),
        "device_traces": histories,
        "allocator_settings": dict(rank.header.get("allocator_settings") or {}),
        "external_annotations": _annotations(rank, devices),
    }


class _Stacks:
    """Stacks as lists of frames, each made once: pickle writes a list that comes again as a reference."""

    def __init__(self, rank: RankTrace) -> None:
        frames, self._stacks = rank.table("frames"), rank.table("stacks")
        self._frames = [
            {"filename": rank.text(int(file)) or "", "line": int(line), "name": rank.text(int(function)) or ""}
            for file, line, function in zip(frames["file"], frames["line"], frames["function"], strict=True)
        ]
        self._made: dict[int, list[dict[str, Any]]] = {}

    def of(self, stack: int) -> list[dict[str, Any]]:
        """Return the frames of a stack, innermost first; none where it was not recorded."""
        if stack not in self._made:
            found, at = [], stack
            while at != NULL:
                found.append(self._frames[int(self._stacks["frame"][at])])
                at = int(self._stacks["parent"][at])
            self._made[stack] = found
        return self._made[stack]


def _devices(rank: RankTrace) -> dict[str, int]:
    """Return the index of each device; the CPU's is 0, and it is left out beside an accelerator."""
    ids = np.unique(np.concatenate([rank.table(name)["device"] for name in ("events", "segments", "initial_blocks")]))
    names = [rank.strings[one] for one in ids.tolist() if one != NULL]
    found = {name: int(index) for name in names for index in [name.partition(":")[2]] if index.isdigit()}
    return found or dict.fromkeys(names[:1], 0)


def _history(rank: RankTrace, device: int, stacks: _Stacks) -> list[dict[str, Any]]:
    events = rank.table("events")
    known = [rank.string_id(action.value) for action in _HISTORY]
    rows = np.flatnonzero((events["device"] == device) & np.isin(events["action"], known))
    columns = [_plain(events, name, rows) for name in ("time_ns", "action", "address", "size_bytes", "stream", "stack")]
    free = _plain(events, "device_free_bytes", rows)
    found = []
    for time_ns, action, address, size, stream, stack, device_free in zip(*columns, free, strict=True):
        name = rank.strings[action]
        entry = {
            "action": name,
            # What torch calls the address of an oom is what the device had left.
            "addr": max(device_free, 0) if name == Action.OOM.value else max(address, 0),
            "size": size,
            "stream": stream,
            "time_us": 0 if time_ns == NULL else time_ns // 1000,
            "frames": stacks.of(stack),
        }
        if name == Action.OOM.value:
            entry["device_free"] = entry["addr"]
        found.append(entry)
    return found


def _plain(table: ColumnTable, name: str, rows: IntArray) -> list[int]:
    values: list[int] = table[name][rows].tolist()
    return values


def _segments(rank: RankTrace, devices: dict[str, int], stacks: _Stacks) -> list[dict[str, Any]]:
    segments, blocks = rank.table("segments"), rank.table("blocks")
    found = []
    for row in segments.rows():
        device = rank.text(row["device"]) or ""
        requested = row["requested_bytes"]
        found.append(
            {
                "device": devices.get(device, 0),
                "address": row["address"],
                "total_size": row["total_bytes"],
                "allocated_size": row["allocated_bytes"],
                "active_size": row["active_bytes"],
                "requested_size": row["active_bytes"] if requested is None else requested,
                "stream": row["stream"],
                "segment_type": rank.text(row["segment_type"]) or "large",
                "segment_pool_id": _pool_id(rank.text(row["pool_id"]) or ""),
                "is_expandable": row["is_expandable"],
                "frames": stacks.of(NULL if row["stack"] is None else row["stack"]),
                "blocks": [],
            }
        )
    for block in blocks.rows():
        requested = block["requested_bytes"]
        found[block["segment"]]["blocks"].append(
            {
                "address": block["address"],
                "size": block["size_bytes"],
                "requested_size": block["size_bytes"] if requested is None else requested,
                "state": rank.text(block["state"]),
                "frames": stacks.of(NULL if block["stack"] is None else block["stack"]),
            }
        )
    return found


def _pool_id(text: str) -> tuple[int, int]:
    first, _, second = text.partition(",")
    return (int(first), int(second)) if first.isdigit() and second.isdigit() else (0, 0)


def _annotations(rank: RankTrace, devices: dict[str, int]) -> list[dict[str, Any]]:
    """Return a START and an END for each named range, in the order of time."""
    found = []
    for row in rank.table("annotations").rows():
        device = devices.get(rank.text(NULL if row["device"] is None else row["device"]) or "", 0)
        for stage, time_ns in (("START", row["start_ns"]), ("END", row["end_ns"])):
            if time_ns is not None:
                name = rank.text(row["name"]) or ""
                found.append({"stage": stage, "name": name, "device": device, "time_us": time_ns // 1000})
    return sorted(found, key=lambda one: int(one["time_us"]))
