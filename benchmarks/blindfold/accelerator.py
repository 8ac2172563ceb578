"""A CPU recording as an accelerator would have made it: addresses of the caching allocator, no stacks in backward.

In: a rank recorded on the CPU, with what the hooks knew. Out: the same rank as if on `cuda:0`.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from benchmarks.blindfold.strip import with_stacks
from memtrace.allocator.blocks import Device
from memtrace.allocator.model import Allocator
from memtrace.allocator.settings import Settings
from memtrace.analysis.attribution.stack_roles import (
    COMMUNICATION,
    ENGINE,
    PYTHON,
    RECOMPUTE,
    frame_role,
    roles_of,
    stack_roles,
)
from memtrace.schema.names import Action
from memtrace.store.columns import NULL, ColumnTable
from memtrace.store.trace import RankTrace

DEVICE = "cuda:0"
_Array = np.ndarray[Any, Any]


def as_on_accelerator(rank: RankTrace) -> RankTrace:
    """Return the rank with the addresses of the caching allocator, up to the last step that has frames."""
    rank = _with_addresses(_until_frames_end(rank))
    rank = dataclasses.replace(rank, strings=tuple(DEVICE if one == "cpu" else one for one in rank.strings))
    return _with_threads(rank)


def _with_threads(rank: RankTrace) -> RankTrace:
    """Return the rank with the stacks of an accelerator's history, where autograd has a thread of its own.

    That thread has no Python but what a hook calls, as checkpointing does; the program's thread always has. On the CPU
    it is the other way round: backward runs on the program's own thread, and frames are recorded in forward, backward
    and optimizer only. What was allocated elsewhere gets the outermost frame of the program.
    """
    table, stack = rank.table("stacks"), rank.table("events")["stack"]
    frames, parents = table["frame"].tolist(), table["parent"].tolist()
    places = rank.table("frames")
    role = [
        frame_role(rank.text(int(file)) or "", rank.text(int(function)) or "")
        for file, function in zip(places["file"], places["function"], strict=True)
    ]
    moved = list(range(len(table)))
    for row in np.flatnonzero(stack_roles(rank) & ENGINE).tolist():
        called, at = [], row
        while at != NULL and not role[frames[at]] & ENGINE:
            called.append(frames[at])
            at = parents[at]
        moved[row] = NULL
        for frame in reversed(called) if any(role[frame] & (RECOMPUTE | COMMUNICATION) for frame in called) else ():
            frames.append(frame)
            parents.append(moved[row])
            moved[row] = len(frames) - 1
    new = np.append(moved, _commonest_root(rank))[np.where(stack == NULL, len(table), stack)]
    stacks = ColumnTable(table.table, {"frame": np.array(frames), "parent": np.array(parents)})
    return with_stacks(dataclasses.replace(rank, tables={**rank.tables, "stacks": stacks}), new)


def _commonest_root(rank: RankTrace) -> int:
    """Return the stack of one frame that most events of the program come from."""
    parents = rank.table("stacks")["parent"].tolist()
    roots: list[int] = []
    for row, parent in enumerate(parents):
        roots.append(row if parent == NULL else roots[parent])
    stack = rank.table("events")["stack"]
    values, counts = np.unique(np.array(roots)[stack[stack != NULL]], return_counts=True)
    return int(values[counts.argmax()])


def _until_frames_end(rank: RankTrace) -> RankTrace:
    """Return the rank up to the end of the last step in which frames were recorded."""
    steps, events = rank.table("steps"), rank.table("events")
    roles = roles_of(stack_roles(rank), events["stack"])
    last_ns = int(events["time_ns"][(roles & PYTHON) > 0].max())
    ends = steps["end_ns"][steps["end_ns"] >= last_ns]
    stop = int(np.searchsorted(events["time_ns"], int(ends.min()), side="right")) if len(ends) else len(events)
    windows = rank.table("windows")
    kept = windows["first_event"] < stop
    cut = {name: column[kept].copy() for name, column in windows.columns.items()}
    cut["num_events"] = np.minimum(cut["num_events"], stop - cut["first_event"])
    tables = {
        "events": ColumnTable(events.table, {name: column[:stop] for name, column in events.columns.items()}),
        "windows": ColumnTable(windows.table, cut),
    }
    return dataclasses.replace(rank, tables={**rank.tables, **tables})


def _with_addresses(rank: RankTrace) -> RankTrace:
    """Return the rank with each address, of events and of what the hooks saw, as the caching allocator gives it."""
    allocator = Allocator(Settings(), Device())
    events, alloc = rank.table("events"), rank.string_id(Action.ALLOC.value)
    seen = [(name, rank.table(name)) for name in ("owners", "saved")]
    marks = sorted(
        (int(time), which, row) for which, (_, table) in enumerate(seen) for row, time in enumerate(table["time_ns"])
    )
    moved = [np.full(len(table), NULL, np.int64) for _, table in seen]
    addresses = events["address"].copy()
    current: dict[int, int] = {}
    at = 0
    columns = (events[name].tolist() for name in ("time_ns", "action", "address", "size_bytes"))
    for row, (time, action, address, size) in enumerate(zip(*columns, strict=True)):
        at = _move(marks, at, time, seen, current, moved)
        if action == alloc:
            block = allocator.malloc(size)
            assert block is not None
            addresses[row] = current[address] = block.address
        elif address in current:
            addresses[row] = current.pop(address)
            allocator.free(int(addresses[row]))
    _move(marks, at, None, seen, current, moved)
    tables = {
        name: ColumnTable(table.table, {**table.columns, "address": new})
        for (name, table), new in zip([*seen, ("events", events)], [*moved, addresses], strict=True)
    }
    return dataclasses.replace(rank, tables={**rank.tables, **tables})


def _move(
    marks: list[tuple[int, int, int]],
    at: int,
    until_ns: int | None,
    seen: list[tuple[str, ColumnTable]],
    current: dict[int, int],
    moved: list[_Array],
) -> int:
    """Translate what was seen before a time. Affects: `moved`."""
    while at < len(marks) and (until_ns is None or marks[at][0] < until_ns):
        _, which, row = marks[at]
        moved[which][row] = current.get(int(seen[which][1]["address"][row]), NULL)
        at += 1
    return at
