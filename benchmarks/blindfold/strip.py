"""A recording as if there had been no hooks: what inference gets to see, and ways of seeing less.

In: a rank that the hooks recorded. Out: the same rank with events, stacks and annotations only.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from memtrace.analysis.device.device_history import build_history
from memtrace.store.columns import NULL, ColumnTable
from memtrace.store.trace import RankTrace

_KNOWN_BY_HOOKS = ("owners", "saved", "steps", "phases", "scopes", "optimizers")


def as_recorded(rank: RankTrace) -> RankTrace:
    """Return the rank without what the hooks knew. Windows too would tell: they begin where frames are switched."""
    tables: dict[str, ColumnTable] = {name: ColumnTable.empty(rank.table(name).table) for name in _KNOWN_BY_HOOKS}
    windows, blocks = rank.table("windows"), rank.table("initial_blocks")
    begins = np.flatnonzero(~windows["continues"].astype(bool)) if len(windows) else np.empty(0, np.int64)
    if len(windows) and (not len(begins) or begins[0] != 0):
        begins = np.concatenate([[0], begins])
    if len(begins):
        merged = {name: column[begins].copy() for name, column in windows.columns.items()}
        merged["num_events"] = np.add.reduceat(windows["num_events"], begins)
        merged["end_ns"] = windows["end_ns"][np.append(begins[1:], len(windows)) - 1]
        merged["reason"][:] = merged["reason"][0]
        tables["windows"] = ColumnTable(windows.table, merged)
        # Blocks of a window that goes on from the one before are known from that one.
        kept = np.isin(blocks["window"], begins)
        columns = {name: column[kept].copy() for name, column in blocks.columns.items()}
        columns["window"] = np.searchsorted(begins, columns["window"])
        tables["initial_blocks"] = ColumnTable(blocks.table, columns)
    return dataclasses.replace(rank, tables={**rank.tables, **tables})


def without_stacks(rank: RankTrace) -> RankTrace:
    """Return the stripped rank with no stack at all: annotations and sizes are left."""
    return with_stacks(as_recorded(rank), np.full(len(rank.table("events")), NULL, np.int64))


def late(rank: RankTrace, device: str) -> RankTrace:
    """Return the stripped rank with a history that begins when step 1 is over: what lived then has no stack."""
    steps = rank.table("steps")
    stop_ns = int(steps["end_ns"][steps["step"] == 1][0])
    history = build_history(rank, device, owns_marks=True)
    moment = history.moments.at_time(stop_ns)
    live, row = history.lifetimes.live_at(moment), int(history.moments.event[moment])
    stripped = as_recorded(rank)
    events = stripped.table("events")
    blocks = stripped.table("initial_blocks")
    columns: dict[str, Any] = {
        "window": np.zeros(len(live), np.int64),
        "device": np.full(len(live), rank.string_id(device), np.int64),
        "address": history.lifetimes.address[live],
        "size_bytes": history.lifetimes.size_bytes[live],
        "stack": np.full(len(live), NULL, np.int64),
    }
    windows = stripped.table("windows")
    window = {name: column[:1].copy() for name, column in windows.columns.items()}
    window["start_ns"][:] = stop_ns
    window["end_ns"][:] = windows["end_ns"][-1]
    window["num_events"][:] = len(events) - row - 1
    window["initial_bytes"][:] = int(history.levels.requested[moment])
    tables = {
        "events": ColumnTable(events.table, {name: column[row + 1 :] for name, column in events.columns.items()}),
        "initial_blocks": ColumnTable(blocks.table, columns),
        "windows": ColumnTable(windows.table, window),
    }
    return dataclasses.replace(stripped, tables={**stripped.tables, **tables})


def with_stacks(rank: RankTrace, stack: np.ndarray[Any, Any]) -> RankTrace:
    """Return the rank with these stacks of its events."""
    events = rank.table("events")
    columns = {**events.columns, "stack": stack}
    return dataclasses.replace(rank, tables={**rank.tables, "events": ColumnTable(events.table, columns)})
