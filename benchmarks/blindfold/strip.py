"""A recording as if there had been no hooks: what inference gets to see, and ways of seeing less.

In: a rank that the hooks recorded. Out: the same rank with events, stacks and annotations only.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

from memtrace.analysis.history import build_history
from memtrace.analysis.stack_roles import ENGINE, PYTHON, roles_of, stack_roles
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
    return _with_stacks(as_recorded(rank), np.full(len(rank.table("events")), NULL, np.int64))


def as_on_accelerator(rank: RankTrace) -> RankTrace:
    """Return the stripped rank with stacks as an accelerator's history has them, where the autograd thread has none.

    On the CPU it is the other way round: backward runs on the program's own thread, and frames are recorded in
    forward, backward and optimizer only. What was allocated elsewhere gets the outermost frame of the program.
    """
    stripped = as_recorded(rank)
    stack = stripped.table("events")["stack"]
    roles = roles_of(stack_roles(stripped), stack)
    own = np.flatnonzero(stripped.table("stacks").is_null("parent"))
    changed = np.where((roles & ENGINE) > 0, NULL, stack)
    if len(own):
        # Where a kept step ran without frames its backward must stay as bare as the rest of the step.
        framed = _framed_steps(rank)
        outside = (stack == NULL) & framed & ~_in_phase(rank)
        changed = np.where(outside, own[0], changed)
    return _with_stacks(stripped, changed)


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


def _with_stacks(rank: RankTrace, stack: np.ndarray[Any, Any]) -> RankTrace:
    events = rank.table("events")
    columns = {**events.columns, "stack": stack}
    return dataclasses.replace(rank, tables={**rank.tables, "events": ColumnTable(events.table, columns)})


def _in_phase(rank: RankTrace) -> np.ndarray[Any, Any]:
    """Return for each event whether a phase was running."""
    phases, times = rank.table("phases"), rank.table("events")["time_ns"]
    inside = np.zeros(len(times), bool)
    for start, end in zip(phases["start_ns"], phases["end_ns"], strict=True):
        inside |= (times >= start) & ((times <= end) | (end == NULL))
    return inside


def _framed_steps(rank: RankTrace) -> np.ndarray[Any, Any]:
    """Return for each event whether it belongs to a step in which frames were recorded, or to the time before."""
    steps, events = rank.table("steps"), rank.table("events")
    roles = roles_of(stack_roles(rank), events["stack"])
    framed = np.zeros(len(events), bool)
    for step, start, end in zip(steps["step"], steps["start_ns"], steps["end_ns"], strict=True):
        inside = (events["time_ns"] > start) & ((events["time_ns"] <= end) | (end == NULL))
        if step == 0 or ((roles[inside] & PYTHON) > 0).any():
            framed |= inside
    return framed


VIEWS: dict[str, Callable[[RankTrace], RankTrace]] = {
    "as recorded": as_recorded,
    "late history": lambda rank: late(rank, "cpu"),
    "accelerator": as_on_accelerator,
    "no stacks": without_stacks,
}
"""What is seen of a recording, by name; the first is what the targets are set for."""
