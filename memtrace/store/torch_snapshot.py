"""torch's memory snapshots (`torch.cuda.memory._dump_snapshot`, and their XPU and HIP forms) as tables.

In: the plain dict of a snapshot. Out: a `RankTrace` with events, windows, initial_blocks, segments, blocks, annotations.
One pass a column over the list of event dicts; no Python object is kept.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Any

import numpy as np

from memtrace.errors import TraceReadError
from memtrace.schema.names import Action, Source
from memtrace.schema.tables import ANNOTATIONS, EVENTS, INITIAL_BLOCKS, TABLES, WINDOWS
from memtrace.store.columns import NULL, ColumnTable, IntArray, int_column
from memtrace.store.initial_state import InitialState, undo_history
from memtrace.store.snapshot_segments import SegmentTables, read_segments
from memtrace.store.stacks import StackTable
from memtrace.store.strings import StringTable
from memtrace.store.trace import LoadWarning, RankTrace

_MAX_TIME_US = 2**63 // 1000 - 1


@dataclass(slots=True)
class _Building:
    """What grows while a snapshot is read."""

    kind: str
    strings: StringTable = field(default_factory=StringTable)
    stacks: StackTable = field(init=False)
    warnings: list[LoadWarning] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.stacks = StackTable(self.strings)

    def device(self, index: int) -> int:
        """Return the string id of a device."""
        return self.strings.id(f"{self.kind}:{index}")

    def warn(self, slug: str, message: str, count: int = 1) -> None:
        """Note something that a user should know."""
        self.warnings.append(LoadWarning(slug=slug, message=message, count=count))


@dataclass(slots=True, kw_only=True, eq=False)
class _History:
    """The events of one device."""

    device: int
    """Index of the device."""
    columns: dict[str, IntArray]
    initial: InitialState
    is_stray: bool
    """Whether this is a leftover event or two and not a history."""


def read_snapshot(data: Any, *, where: str, device_kind: str = "cuda", max_entries: int | None = None) -> RankTrace:
    """Return the trace that a snapshot holds; `max_entries` is the length of torch's ring, where it is known.

    Raises:
        TraceReadError: the value is not a snapshot.
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
    building = _Building(kind=device_kind)
    segments = read_segments(data["segments"], building.strings, building.stacks, device_name=building.device)
    traces = data.get("device_traces") or []
    if not isinstance(traces, list) or not all(isinstance(one, list) for one in traces):
        raise TraceReadError(f"{where}: device_traces is not a list of lists", slug="file-damaged")
    histories = [_history(building, segments, index, trace) for index, trace in enumerate(traces) if trace]
    for history in histories:
        _check_history(building, segments, history, max_entries)
    if all(history.is_stray for history in histories):
        building.warn("no-history", "The snapshot holds no history of allocations: only its last moment is known.")
    events = _joined(histories)
    windows, initial_blocks = _windows(building, histories)
    tables = {
        EVENTS.name: ColumnTable(EVENTS, events),
        WINDOWS.name: windows,
        INITIAL_BLOCKS.name: initial_blocks,
        ANNOTATIONS.name: _annotations(building, data.get("external_annotations") or []),
        **segments.tables,
        **building.stacks.tables(),
    }
    header = _header(building, data, segments, histories, windows)
    return RankTrace(
        header=header,
        strings=building.strings.texts(),
        tables={table.name: tables.get(table.name) or ColumnTable.empty(table) for table in TABLES},
        warnings=tuple(building.warnings),
    )


def _history(building: _Building, segments: SegmentTables, index: int, trace: list[Any]) -> _History:
    """Return the events of one device, and the blocks that were live before them."""
    if not set(map(type, trace)) <= {dict}:
        raise TraceReadError("an event of the history is not a dict", slug="file-damaged")
    columns = _event_columns(building, index, trace)
    action = columns["action"]
    is_alloc = action == building.strings.id(Action.ALLOC.value)
    is_free = action == building.strings.id(Action.FREE_COMPLETED.value)
    changes = np.flatnonzero((is_alloc | is_free) & (columns["address"] != NULL))
    final = segments.live_blocks(building.device(index))
    initial = undo_history(
        is_alloc=is_alloc[changes],
        address=columns["address"][changes],
        size_bytes=columns["size_bytes"][changes],
        final_address=final.address,
        final_size_bytes=final.size_bytes,
        final_stack=final.stack,
    )
    # A snapshot without a history may still hold one event: what happened while the recorder was being switched.
    is_stray = len(changes) <= 1 and not is_alloc.any()
    return _History(device=index, columns=columns, initial=initial, is_stray=is_stray)


def _event_columns(building: _Building, index: int, trace: list[Any]) -> dict[str, IntArray]:
    """Return the columns of the events table for one device."""
    name = f"device_traces[{index}]"
    try:
        actions = list(map(itemgetter("action"), trace))
        sizes = int_column(list(map(itemgetter("size"), trace)), where=f"{name} size")
    except KeyError as error:
        raise TraceReadError(f"{name}: an event without {error}", slug="file-damaged") from None
    if len(sizes) and sizes.min() < 0:
        raise TraceReadError(f"{name}: an event of a negative size", slug="file-damaged")
    num = len(trace)
    return {
        "time_ns": _times(_optional(trace, "time_us"), where=f"{name} time_us"),
        "action": _action_ids(building, actions, where=name),
        "device": np.full(num, building.device(index), np.int64),
        "address": int_column(_optional(trace, "addr"), where=f"{name} addr", nullable=True),
        "size_bytes": sizes,
        "stream": int_column(_optional(trace, "stream", 0), where=f"{name} stream"),
        "stack": building.stacks.rows_of(_optional(trace, "frames")),
        "total_bytes": np.full(num, NULL, np.int64),
        "device_free_bytes": _device_free(trace, actions, where=f"{name} device_free"),
    }


def _optional(trace: list[Any], key: str, default: Any = None) -> list[Any]:
    """Return one field of every event; the default where an event lacks it."""
    try:
        return list(map(itemgetter(key), trace))
    except KeyError:
        return [event.get(key, default) for event in trace]


def _action_ids(building: _Building, actions: list[Any], *, where: str) -> IntArray:
    """Return the string ids of actions; actions of a newer torch are kept by their name."""
    try:
        names = set(actions)
    except TypeError:
        raise TraceReadError(f"{where}: an action that is not a text", slug="file-damaged") from None
    ids = {name: building.strings.id(name) for name in sorted(names, key=str)}
    unknown = names - {action.value for action in Action}
    if unknown:
        message = "The history holds actions that this memtrace does not know; they are ignored."
        building.warn("unknown-action", message, sum(map(unknown.__contains__, actions)))
    return int_column(list(map(ids.__getitem__, actions)), where=where)


def _times(times_us: list[Any], *, where: str) -> IntArray:
    """Return microseconds as nanoseconds; null where torch (before 2.2) wrote none."""
    times = int_column(times_us, where=where, nullable=True)
    known = times != NULL
    if np.any(np.abs(times[known]) > _MAX_TIME_US):
        raise TraceReadError(f"{where}: a time beyond the year 2262", slug="file-damaged")
    return np.where(known, times * 1000, NULL)


def _device_free(trace: list[Any], actions: list[Any], *, where: str) -> IntArray:
    """Return the free memory of the device at each oom event, null at all others."""
    column = np.full(len(trace), NULL, np.int64)
    if Action.OOM.value in actions:
        column[:] = int_column([event.get("device_free") for event in trace], where=where, nullable=True)
    return column


def _check_history(building: _Building, segments: SegmentTables, history: _History, max_entries: int | None) -> None:
    """Warn of what the history of one device cannot tell, or tells wrongly."""
    name, num_events = f"{building.kind}:{history.device}", len(history.columns["action"])
    if history.is_stray:
        building.warn("stray-events", f"{name}: a leftover event without a history around it.", num_events)
        return
    if max_entries is not None and num_events >= max_entries:
        building.warn("history-overflowed", f"{name}: the history is full ({num_events} events); older ones are lost.")
    elif max_entries is None and len(history.initial.address) and _is_round(num_events):
        building.warn(
            "history-overflowed",
            f"{name}: the history holds exactly {num_events} events, which looks like its limit; older ones may be lost.",
        )
    if np.any(history.columns["time_ns"] == NULL):
        building.warn("no-event-times", f"{name}: events without a time (torch before 2.2); only their order is known.")
    contradictions = history.initial.num_contradictions
    if contradictions:
        building.warn(
            "contradictory-history", f"{name}: events that contradict each other or the segments.", contradictions
        )
    excess = _largest_excess(building, segments, history)
    if excess > 0:
        building.warn(
            "physically-inconsistent",
            f"{name}: the replayed history holds {excess} bytes more than the segments could: "
            "the file was edited, or events are missing, and its figures cannot all be true.",
        )


def _is_round(number: int) -> bool:
    """Return whether a count looks like a limit that somebody typed: 100000, 250000, 65536."""
    return number >= 1000 and (number & (number - 1) == 0 or len(str(number).rstrip("0")) <= 2)


def _largest_excess(building: _Building, segments: SegmentTables, history: _History) -> int:
    """Return by how many bytes live blocks exceed the segments at the worst moment (requested bytes, so never too much)."""
    sizes, live = (
        history.columns["size_bytes"],
        _deltas(building, history, {Action.ALLOC: 1, Action.FREE_COMPLETED: -1}),
    )
    growing = {Action.SEGMENT_ALLOC: 1, Action.SEGMENT_MAP: 1, Action.SEGMENT_FREE: -1, Action.SEGMENT_UNMAP: -1}
    reserved = _deltas(building, history, growing)
    live_after = int(history.initial.size_bytes.sum()) + np.cumsum(sizes * live)
    reserved_end = segments.total_bytes(building.device(history.device))
    reserved_after = np.cumsum(sizes * reserved)
    reserved_after += reserved_end - int(reserved_after[-1])
    return int(np.max(live_after - reserved_after))


def _deltas(building: _Building, history: _History, signs: Mapping[Action, int]) -> IntArray:
    """Return, for each event, by which sign it changes a sum."""
    action = history.columns["action"]
    deltas = np.zeros(len(action), np.int64)
    for name, sign in signs.items():
        deltas[action == building.strings.id(name.value)] = sign
    return deltas


def _joined(histories: Sequence[_History]) -> dict[str, IntArray]:
    """Return the events of all devices, device by device."""
    if not histories:
        return {column.name: np.empty(0, np.int64) for column in EVENTS.columns}
    if len(histories) == 1:
        return histories[0].columns
    names = EVENTS.column_names()
    return {name: np.concatenate([history.columns[name] for history in histories]) for name in names}


def _windows(building: _Building, histories: Sequence[_History]) -> tuple[ColumnTable, ColumnTable]:
    """Return one window for each device that has a history, and the blocks live at its start."""
    windows: list[dict[str, int]] = []
    blocks: list[dict[str, IntArray]] = []
    first_event = 0
    for history in histories:
        time, num_events = history.columns["time_ns"], len(history.columns["time_ns"])
        if not history.is_stray:
            initial = history.initial
            num_blocks = len(initial.address)
            windows.append(
                {
                    "start_ns": int(time[0]),
                    "end_ns": int(time[-1]),
                    "first_event": first_event,
                    "num_events": num_events,
                    "initial_bytes": int(initial.size_bytes.sum()),
                    "num_lost": 0,
                    "reason": building.strings.id("resume" if num_blocks else "start"),
                }
            )
            blocks.append(
                {
                    "window": np.full(num_blocks, len(windows) - 1, np.int64),
                    "device": np.full(num_blocks, building.device(history.device), np.int64),
                    "address": initial.address,
                    "size_bytes": initial.size_bytes,
                    "stack": initial.stack,
                }
            )
        first_event += num_events
    window_columns: dict[str, Any] = {
        name: np.array([window[name] for window in windows], np.int64)
        for name in WINDOWS.column_names()
        if name != "continues"
    }
    window_columns["continues"] = np.zeros(len(windows), np.bool_)
    if not blocks:
        return ColumnTable(WINDOWS, window_columns), ColumnTable.empty(INITIAL_BLOCKS)
    block_columns = {name: np.concatenate([one[name] for one in blocks]) for name in INITIAL_BLOCKS.column_names()}
    return ColumnTable(WINDOWS, window_columns), ColumnTable(INITIAL_BLOCKS, block_columns)


def _annotations(building: _Building, annotations: Any) -> ColumnTable:
    """Return the named ranges: each END is joined to the last open START of its name and device."""
    if not isinstance(annotations, list) or not all(isinstance(one, dict) for one in annotations):
        raise TraceReadError("external_annotations is not a list of dicts", slug="file-damaged")
    times = _times([one.get("time_us") for one in annotations], where="external_annotations time_us")
    rows: list[list[int]] = []
    still_open: dict[tuple[int, int], list[list[int]]] = {}
    for one, time in zip(annotations, times.tolist(), strict=True):
        index = one.get("device", 0)
        device = building.device(index) if isinstance(index, int) else NULL
        name = building.strings.id(one.get("name", ""))
        waiting = still_open.setdefault((name, device), [])
        if one.get("stage") == "START":
            rows.append([name, time, NULL, device])
            waiting.append(rows[-1])
        elif waiting:
            waiting.pop()[2] = time
        else:
            rows.append([name, NULL, time, device])
    values = np.array(rows, np.int64).reshape(len(rows), len(ANNOTATIONS.columns))
    return ColumnTable(ANNOTATIONS, {name: values[:, at] for at, name in enumerate(ANNOTATIONS.column_names())})


def _header(
    building: _Building,
    data: Mapping[Any, Any],
    segments: SegmentTables,
    histories: Sequence[_History],
    windows: ColumnTable,
) -> dict[str, Any]:
    """Return the header facts that a snapshot knows."""
    devices = sorted({f"{building.kind}:{one.device}" for one in histories} | set(segments.device_names))
    starts, ends = windows["start_ns"], windows["end_ns"]
    starts, ends = starts[starts != NULL], ends[ends != NULL]
    return {
        "source": Source.SNAPSHOT.value,
        "rank": None,
        "start_ns": int(starts.min()) if len(starts) else None,
        "end_ns": int(ends.max()) if len(ends) else None,
        "complete": True,
        "devices": [{"name": name, "capacity_bytes": None, "kind": building.kind} for name in devices],
        "sources": {"events": "torch_snapshot" if len(windows) else None},
        "versions": {},
        "allocator_settings": plain_settings(data.get("allocator_settings")),
    }


def plain_settings(value: Any) -> dict[str, Any]:
    """Return allocator settings with everything dropped that a header cannot hold."""
    if not isinstance(value, dict):
        return {}
    kept: dict[str, Any] = {}
    for name, setting in value.items():
        if isinstance(setting, dict):
            setting = {str(key): one for key, one in setting.items() if isinstance(one, (str, int, float, bool))}
        if isinstance(name, str) and (setting is None or isinstance(setting, (str, int, float, bool, dict))):
            kept[name] = setting
    return kept
