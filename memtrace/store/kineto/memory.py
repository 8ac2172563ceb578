"""The `[memory]` events of a profile: signed bytes of an allocator, with address and running total in newer files.

Each device is one window. Sizes are those of whole blocks: on a GPU the profiler knows nothing of requested bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from memtrace.errors import TraceReadError
from memtrace.schema.names import Action
from memtrace.schema.tables import EVENTS, INITIAL_BLOCKS, WINDOWS
from memtrace.store.build import concatenated, table_of_rows
from memtrace.store.columns import NULL, ColumnTable, IntArray, check_num_devices, int_column
from memtrace.store.reconcile import Reconciled, reconcile
from memtrace.store.strings import StringTable
from memtrace.store.trace import LoadWarning

_DEVICE_KINDS = {0: "cpu", 1: "cuda", 6: "hip", 12: "xpu"}
"""Numbers of c10::DeviceType whose allocators a profile can hold."""


def memory_tables(
    entries: Sequence[dict[str, Any]], times: IntArray, strings: StringTable, *, where: str
) -> tuple[dict[str, ColumnTable], list[str], list[LoadWarning]]:
    """Return events, windows and initial_blocks, the names of the devices, and what had to be assumed.

    Raises:
        TraceReadError: an event is not what it should be.
    """
    columns = _columns(entries, times, strings, where)
    alloc, free = (strings.id(action.value) for action in (Action.ALLOC, Action.FREE_COMPLETED))
    pieces: list[dict[str, IntArray]] = []
    windows: list[tuple[int, ...]] = []
    blocks: list[dict[str, Any]] = []
    num_frees = num_allocs = first_event = 0
    # In the order of their first event; a window is of one device.
    ids = list(dict.fromkeys(columns["device"].tolist()))
    check_num_devices(len(ids), where=where)
    for device in ids:
        rows = np.flatnonzero(columns["device"] == device)
        # The entries of several threads stand one after the other.
        rows = rows[np.argsort(columns["time_ns"][rows], kind="stable")]
        whole = reconcile({name: values[rows] for name, values in columns.items()}, alloc=alloc, free=free)
        pieces.append(whole.columns)
        blocks.append(_initial_blocks(whole, len(windows)))
        time = whole.columns["time_ns"]
        initial_bytes = _initial_bytes(whole, alloc)
        reason = strings.id("profiler")
        windows.append((int(time[0]), int(time[-1]), first_event, len(time), initial_bytes, 0, reason, False))
        first_event += len(time)
        num_frees += whole.num_frees_not_seen
        num_allocs += whole.num_allocs_not_seen
    tables = {
        EVENTS.name: concatenated(EVENTS, pieces),
        WINDOWS.name: table_of_rows(WINDOWS, windows),
        INITIAL_BLOCKS.name: concatenated(INITIAL_BLOCKS, blocks),
    }
    texts = strings.texts()
    devices = [texts[device] for device in dict.fromkeys(columns["device"].tolist())]
    return tables, devices, _assumed(num_frees, num_allocs)


def _columns(
    entries: Sequence[dict[str, Any]], times: IntArray, strings: StringTable, where: str
) -> dict[str, IntArray]:
    """Return the columns of the events table, in the order of the file."""
    args = [entry["args"] for entry in entries]
    signed = int_column([one.get("Bytes") for one in args], where=f"{where}: Bytes")
    keys = [_device_key(one, where) for one in args]
    names = {key: strings.id(_device_name(*key)) for key in dict.fromkeys(keys)}
    action = np.where(signed > 0, strings.id(Action.ALLOC.value), strings.id(Action.FREE_COMPLETED.value))
    nulls = np.full(len(args), NULL, np.int64)
    totals = int_column([one.get("Total Allocated") for one in args], where=f"{where}: Total Allocated", nullable=True)
    return {
        "time_ns": times,
        "action": action,
        "device": np.array([names[key] for key in keys], np.int64),
        "address": int_column([one.get("Addr") for one in args], where=f"{where}: Addr", nullable=True),
        "size_bytes": np.abs(signed),
        "stream": np.zeros(len(args), np.int64),
        "stack": nulls,
        # A profiler that began late can count below zero; that says nothing.
        "total_bytes": np.where(totals < 0, NULL, totals),
        "device_free_bytes": nulls,
    }


def _device_key(args: dict[str, Any], where: str) -> tuple[int, int]:
    kind, index = args.get("Device Type", 0), args.get("Device Id", -1)
    if type(kind) is not int or type(index) is not int:
        raise TraceReadError(f"{where}: a Device Type or Device Id that is not a number", slug="file-damaged")
    return kind, index


def _device_name(kind: int, index: int) -> str:
    """Return the name of a device.

    >>> _device_name(0, -1), _device_name(1, 3), _device_name(6, 0), _device_name(9, 2)
    ('cpu', 'cuda:3', 'hip:0', 'device9:2')
    """
    name = _DEVICE_KINDS.get(kind, f"device{kind}")
    return name if name == "cpu" else f"{name}:{max(index, 0)}"


def _initial_bytes(whole: Reconciled, alloc: int) -> int:
    """Return what was live before the first event: the allocator's total less that event; null where there is none."""
    total = int(whole.columns["total_bytes"][0])
    if total == NULL:
        return NULL
    size = int(whole.columns["size_bytes"][0])
    return max(total - size if int(whole.columns["action"][0]) == alloc else total + size, 0)


def _initial_blocks(whole: Reconciled, window: int) -> dict[str, IntArray]:
    num_blocks = len(whole.initial_address)
    return {
        "window": np.full(num_blocks, window, np.int64),
        "device": whole.initial_device,
        "address": whole.initial_address,
        "size_bytes": whole.initial_size_bytes,
        "stack": np.full(num_blocks, NULL, np.int64),
    }


def _assumed(num_frees: int, num_allocs: int) -> list[LoadWarning]:
    messages = (
        ("free-not-seen", "Blocks were freed where the profiler does not see: another thread.", num_frees),
        ("alloc-not-seen", "Blocks were allocated where the profiler does not see: another thread.", num_allocs),
    )
    return [LoadWarning(slug=slug, message=message, count=count) for slug, message, count in messages if count]
