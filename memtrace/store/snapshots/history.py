"""The history in a torch snapshot: one device's list of event dicts as columns, what was live before it, and whether
it can be true.

One pass a column over the list; no Python object is kept. A long history comes as columns (`packed_events`), with some
events as dicts among them: it makes the same tables, row by row and number by number.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Any

import numpy as np

from memtrace.errors import TraceReadError
from memtrace.schema.names import Action
from memtrace.store.columns import NULL, IntArray, check_sizes, check_times, int_column
from memtrace.store.snapshots.event_runs import first_uses
from memtrace.store.snapshots.initial_state import InitialState, undo_history
from memtrace.store.snapshots.packed_events import PackedEvents
from memtrace.store.snapshots.segments import LiveBlocks, SegmentTables
from memtrace.store.stacks import StackTable
from memtrace.store.strings import StringTable
from memtrace.store.trace import LoadWarning

_MAX_TIME_US = 2**63 // 1000 - 1


@dataclass(slots=True, kw_only=True)
class SnapshotReading:
    """What grows while a snapshot is read."""

    kind: str
    """What its devices are called: cuda, hip, xpu."""
    strings: StringTable
    stacks: StackTable
    max_entries: int | None = None
    """Length of torch's ring, where it is known."""
    keep_from_ns: int | None = None
    """Events before this Unix time are not wanted."""
    previous: Mapping[int, Mapping[str, IntArray]] = field(default_factory=dict)
    """Events of the snapshot before this one in a recording, by device id: this one may repeat them."""
    warnings: list[LoadWarning] = field(default_factory=list)

    def device_id(self, index: int) -> int:
        """Return the string id of a device."""
        return self.strings.id(f"{self.kind}:{index}")

    def warn(self, slug: str, message: str, count: int = 1) -> None:
        """Note something that a user should know."""
        self.warnings.append(LoadWarning(slug=slug, message=message, count=count))


@dataclass(slots=True, kw_only=True, eq=False)
class History:
    """The events of one device."""

    device: int
    """Index of the device."""
    device_id: int
    """String id of its name."""
    columns: dict[str, IntArray]
    initial: InitialState
    final: LiveBlocks
    is_stray: bool
    """Whether this is a leftover event or two and not a history."""
    num_unwanted: int
    """Events dropped because they were older than wanted."""


def read_history(
    reading: SnapshotReading, segments: SegmentTables, index: int, trace: list[Any] | PackedEvents
) -> History:
    """Return the events of one device, and the blocks that were live before them.

    Raises:
        TraceReadError: an event is not what it should be.
    """
    dicts = trace.dicts if isinstance(trace, PackedEvents) else trace
    if not set(map(type, dicts)) <= {dict}:
        raise TraceReadError("an event of the history is not a dict", slug="file-damaged")
    whole = _event_columns(reading, index, trace)
    device_id = reading.device_id(index)
    num_repeated = _num_repeated(reading.previous.get(device_id), whole)
    num_unwanted = _num_unwanted(reading.keep_from_ns, whole["time_ns"][num_repeated:])
    first = num_repeated + num_unwanted
    columns = {name: values[first:] for name, values in whole.items()} if first else whole
    action = columns["action"]
    is_alloc = action == reading.strings.id(Action.ALLOC.value)
    is_free = action == reading.strings.id(Action.FREE_COMPLETED.value)
    changes = np.flatnonzero((is_alloc | is_free) & (columns["address"] != NULL))
    final = segments.live_blocks(device_id)
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
    history = History(
        device=index,
        device_id=device_id,
        columns=columns,
        initial=initial,
        final=final,
        is_stray=is_stray,
        num_unwanted=num_unwanted,
    )
    _check_history(reading, segments, history, num_events=len(trace))
    return history


_SAME_EVENT = ("action", "address", "size_bytes", "stream")
"""What tells one event from another in two snapshots; its time moves by microseconds between them."""
_OVERLAP_SLACK = 64
"""Events by which the count by time may be off: times are fitted anew for each snapshot."""


def _num_repeated(previous: Mapping[str, IntArray] | None, columns: Mapping[str, IntArray]) -> int:
    """Return how many of the first events stood in the snapshot before: torch's ring need not be emptied by a dump."""
    if previous is None or not len(previous["time_ns"]):
        return 0
    by_time = int(np.searchsorted(columns["time_ns"], previous["time_ns"][-1], side="right"))
    num_events = len(columns["time_ns"])
    for distance in range(_OVERLAP_SLACK):
        for candidate in {by_time + distance, by_time - distance}:
            if 0 < candidate <= num_events and _tails_agree(previous, columns, candidate):
                return candidate
    return by_time


def _tails_agree(previous: Mapping[str, IntArray], columns: Mapping[str, IntArray], num_repeated: int) -> bool:
    """Return whether the snapshot before ends with the events that the first so many of this one end with."""
    length = min(num_repeated, len(previous["time_ns"]), _OVERLAP_SLACK)
    moved = np.abs(columns["time_ns"][num_repeated - 1] - previous["time_ns"][-1])
    return bool(moved < 1_000_000) and all(
        np.array_equal(previous[name][-length:], columns[name][num_repeated - length : num_repeated])
        for name in _SAME_EVENT
    )


def _num_unwanted(keep_from_ns: int | None, times: IntArray) -> int:
    return 0 if keep_from_ns is None else int(np.searchsorted(times, keep_from_ns, side="left"))


def _event_columns(reading: SnapshotReading, index: int, trace: list[Any] | PackedEvents) -> dict[str, IntArray]:
    """Return the columns of the events table for one device."""
    name = f"device_traces[{index}]"
    packed = trace if isinstance(trace, PackedEvents) else None
    dicts = trace.dicts if isinstance(trace, PackedEvents) else trace
    try:
        actions = list(map(itemgetter("action"), dicts))
        sizes = int_column(list(map(itemgetter("size"), dicts)), where=f"{name} size")
    except KeyError as error:
        raise TraceReadError(f"{name}: an event without {error}", slug="file-damaged") from None
    times = int_column(_optional(dicts, "time_us"), where=f"{name} time_us", nullable=True)
    addresses = int_column(_optional(dicts, "addr"), where=f"{name} addr", nullable=True)
    streams = int_column(_optional(dicts, "stream", 0), where=f"{name} stream")
    frames = _optional(dicts, "frames")
    free = _device_free(dicts, actions, where=f"{name} device_free")
    action = _action_ids(reading, actions if packed is None else [*actions, *packed.actions], where=name)
    if packed is not None:
        # What was packed has known actions, each of which stands once behind those of the dicts.
        action = packed.merged(action[: len(dicts)], action[len(dicts) :][packed.action])
        sizes = packed.merged(sizes, packed.ints["size"])
        times = packed.merged(times, packed.ints["time_us"])
        addresses = packed.merged(addresses, packed.ints["addr"])
        streams = packed.merged(streams, packed.ints["stream"])
        free = packed.merged(free, np.full(len(packed.packed_at), NULL, np.int64))
    check_sizes(sizes, where=f"{name} size")
    return {
        "time_ns": _in_ns(times, where=f"{name} time_us"),
        "action": action,
        "device": np.full(len(sizes), reading.device_id(index), np.int64),
        "address": addresses,
        "size_bytes": sizes,
        "stream": streams,
        "stack": reading.stacks.rows_of(frames) if packed is None else _packed_stacks(reading, packed, frames),
        "total_bytes": np.full(len(sizes), NULL, np.int64),
        "device_free_bytes": free,
    }


def _packed_stacks(reading: SnapshotReading, packed: PackedEvents, frames: list[Any]) -> IntArray:
    """Return the stack row of each event; rows are given in the order of first use, as for a list of events."""
    codes = np.flatnonzero(np.bincount(packed.stack, minlength=len(packed.stacks)))
    first = first_uses(packed.stack, len(packed.stacks))[codes]
    order = np.argsort(np.concatenate([packed.dict_at, packed.packed_at[first]]), kind="stable")
    objects = [*frames, *(packed.stacks[code] for code in codes.tolist())]
    rows = np.empty(len(order), np.int64)
    rows[order] = reading.stacks.rows_of([objects[at] for at in order.tolist()])
    of_code = np.full(len(packed.stacks), NULL, np.int64)
    of_code[codes] = rows[len(frames) :]
    return packed.merged(rows[: len(frames)], of_code[packed.stack])


def _optional(trace: list[Any], key: str, default: Any = None) -> list[Any]:
    """Return one field of every event; the default where an event lacks it."""
    try:
        return list(map(itemgetter(key), trace))
    except KeyError:
        return [event.get(key, default) for event in trace]


def _action_ids(reading: SnapshotReading, actions: list[Any], *, where: str) -> IntArray:
    """Return the string ids of actions; actions of a newer torch are kept by their name."""
    if not all(issubclass(kind, str) for kind in set(map(type, actions))):
        raise TraceReadError(f"{where}: an action that is not a text", slug="file-damaged")
    names = set(actions)
    ids = {name: reading.strings.id(name) for name in sorted(names, key=str)}
    unknown = names - {action.value for action in Action}
    if unknown:
        message = "The history holds actions that this memtrace does not know; they are ignored."
        reading.warn("unknown-action", message, sum(map(unknown.__contains__, actions)))
    return int_column(list(map(ids.__getitem__, actions)), where=where)


def times_ns(times_us: list[Any], *, where: str) -> IntArray:
    """Return microseconds as nanoseconds; null where torch (before 2.2) wrote none."""
    return _in_ns(int_column(times_us, where=where, nullable=True), where=where)


def _in_ns(times: IntArray, *, where: str) -> IntArray:
    known = times != NULL
    if np.any(np.abs(times[known]) > _MAX_TIME_US):
        raise TraceReadError(f"{where}: a time beyond the year 2262", slug="file-damaged")
    return check_times(np.where(known, times * 1000, NULL), where=where)


def _device_free(trace: list[Any], actions: list[Any], *, where: str) -> IntArray:
    """Return the free memory of the device at each oom event, null at all others."""
    column = np.full(len(trace), NULL, np.int64)
    if Action.OOM.value in actions:
        column[:] = int_column([event.get("device_free") for event in trace], where=where, nullable=True)
    return column


def _check_history(reading: SnapshotReading, segments: SegmentTables, history: History, *, num_events: int) -> None:
    """Warn of what the history of one device cannot tell, or tells wrongly."""
    name = f"{reading.kind}:{history.device}"
    if history.is_stray:
        reading.warn("stray-events", f"{name}: a leftover event without a history around it.", num_events)
        return
    # Events that were not wanted are older than the window: what the ring lost before them was not wanted either.
    if reading.max_entries is not None and num_events >= reading.max_entries and not history.num_unwanted:
        message = f"{name}: the history is full ({num_events} events): older ones are lost."
        reading.warn("history-overflowed", message)
    elif reading.max_entries is None and len(history.initial.address) and _is_round(num_events):
        message = f"{name}: the history holds exactly {num_events} events, as if that were its limit: "
        reading.warn("history-overflowed", f"{message}older ones may be lost.")
    if np.any(history.columns["time_ns"] == NULL):
        message = f"{name}: events without a time (torch before 2.2): only their order is known."
        reading.warn("no-event-times", message)
    contradictions = history.initial.num_contradictions
    if contradictions:
        message = f"{name}: events contradict each other or the segments."
        reading.warn("contradictory-history", message, contradictions)
    excess = _largest_excess(reading, segments, history)
    if excess > 0:
        reading.warn(
            "physically-inconsistent",
            f"{name}: the replayed history holds {excess} bytes more than the segments could: "
            "the file was edited, or events are missing, and its figures cannot all be true.",
        )


def _is_round(number: int) -> bool:
    """Return whether a count looks like a limit that somebody typed: 100000, 250000, 65536."""
    digits = len(str(number).rstrip("0"))
    return number >= 1000 and (number & (number - 1) == 0 or digits == 1 or (digits == 2 and number >= 10_000))


def _largest_excess(reading: SnapshotReading, segments: SegmentTables, history: History) -> int:
    """Return by how many bytes live blocks exceed the segments at the worst moment; in truth it is never above 0."""
    sizes = history.columns["size_bytes"]
    live = _deltas(reading, history, {Action.ALLOC: 1, Action.FREE_COMPLETED: -1})
    growing = {Action.SEGMENT_ALLOC: 1, Action.SEGMENT_MAP: 1, Action.SEGMENT_FREE: -1, Action.SEGMENT_UNMAP: -1}
    reserved = _deltas(reading, history, growing)
    live_after = int(history.initial.size_bytes.sum()) + np.cumsum(sizes * live)
    reserved_end = segments.total_bytes(reading.device_id(history.device))
    reserved_after = np.cumsum(sizes * reserved)
    reserved_after += reserved_end - int(reserved_after[-1])
    return int(np.max(live_after - reserved_after))


def _deltas(reading: SnapshotReading, history: History, signs: Mapping[Action, int]) -> IntArray:
    """Return, for each event, by which sign it changes a sum."""
    action = history.columns["action"]
    deltas = np.zeros(len(action), np.int64)
    for name, sign in signs.items():
        deltas[action == reading.strings.id(name.value)] = sign
    return deltas
