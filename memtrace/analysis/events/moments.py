"""The clock of one device: its moments, which are the start of each epoch and the time after each event.

In: the events and windows of a rank. Out: `Moments`, the axis that all levels of memory are arrays over.

An epoch is a stretch without a gap: windows that continue the one before belong to its epoch. Events of another device
are no moments of this one.

    events      e0 e1 e2 | gap | e3 e4
    moments   0  1  2  3       4  5  6        (0 and 4: the starts of the two epochs)
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from memtrace.schema.names import Action
from memtrace.store.columns import NULL, IntArray
from memtrace.store.trace import RankTrace

SEGMENT_SIGNS = {
    Action.SEGMENT_ALLOC: 1,
    Action.SEGMENT_MAP: 1,
    Action.SEGMENT_FREE: -1,
    Action.SEGMENT_UNMAP: -1,
}
"""How each segment event changes reserved bytes."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Epoch:
    """A stretch of one device's history without a gap."""

    start: int
    """Its first moment, before its first event."""
    stop: int
    """One past its last moment."""
    windows: tuple[int, ...]
    """Rows of the windows table; the first one began it."""
    start_ns: int | None
    """Unix time at which it began."""
    end_ns: int | None
    """Unix time at which it ended."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Moments:
    """The moments of one device, in order."""

    rows: IntArray
    """Rows of the events table that are events of this device, ascending."""
    of_event: IntArray
    """The moment after each of these events."""
    action: IntArray
    """String id of the action of each of these events."""
    event: IntArray
    """For each moment the row of its event; at the start of an epoch the row before, which may be -1."""
    time_ns: IntArray
    """For each moment its Unix time, never falling; 0 where times were not recorded."""
    has_times: bool
    """Whether times were recorded."""
    epochs: tuple[Epoch, ...]
    """At least one."""

    def __len__(self) -> int:
        return len(self.event)

    def at_time(self, time_ns: int) -> int:
        """Return the last moment at or before a Unix time (the first moment, if all are later)."""
        return max(int(np.searchsorted(self.time_ns, time_ns, side="right")) - 1, 0)

    def at_times(self, times_ns: IntArray) -> IntArray:
        """Return `at_time` of each of many times."""
        found: IntArray = np.maximum(np.searchsorted(self.time_ns, times_ns, side="right") - 1, 0)
        return found

    def epoch_starts(self) -> IntArray:
        """Return the first moment of each epoch."""
        return np.array([epoch.start for epoch in self.epochs], np.int64)

    def is_epoch_start(self, moment: int) -> bool:
        """Return whether no event, but the start of an epoch, led to this moment."""
        return any(epoch.start == moment for epoch in self.epochs)

    def is_action(self, rank: RankTrace, *actions: Action) -> npt.NDArray[np.bool_]:
        """Return, for each event of the device, whether it is one of these actions."""
        found = self.action == rank.string_id(actions[0].value)
        for action in actions[1:]:
            found |= self.action == rank.string_id(action.value)
        return np.asarray(found)


def build_moments(rank: RankTrace, device: str) -> Moments:
    """Return the moments of one device of a rank."""
    events = rank.table("events")
    of_device = events["device"] == rank.string_id(device)
    rows = np.flatnonzero(of_device)
    windows = _windows_of(rank, device, of_device)
    first_windows = _epoch_windows(rank, windows)
    boundaries = np.array([rank.table("windows")["first_event"][group[0]] for group in first_windows[1:]], np.int64)
    # Each epoch has a moment of its own in front of its events: how things stood before them. Of the events 0 to 5 with
    # a boundary before event 4 the moments are 1 2 3 4 and 6 7; those of the two epochs are 0 and 5.
    of_event = np.arange(1, len(rows) + 1) + np.searchsorted(boundaries, rows, side="right")
    starts = np.concatenate([[0], np.searchsorted(rows, boundaries) + np.arange(1, len(boundaries) + 1)]).astype(
        np.int64
    )
    num_moments = len(rows) + len(starts)
    event = np.empty(num_moments, np.int64)
    event[of_event] = rows
    event[starts] = np.concatenate([[rows[0] - 1 if len(rows) else -1], boundaries - 1])
    stops = np.append(starts[1:], num_moments)
    epochs = tuple(
        _epoch(rank, int(start), int(stop), group)
        for start, stop, group in zip(starts, stops, first_windows, strict=True)
    )
    time_ns, has_times = _times(events["time_ns"][rows], of_event, epochs, num_moments)
    return Moments(
        rows=rows,
        of_event=of_event,
        action=events["action"][rows],
        event=event,
        time_ns=time_ns,
        has_times=has_times,
        epochs=epochs,
    )


def _windows_of(rank: RankTrace, device: str, of_device: npt.NDArray[np.bool_]) -> list[int]:
    """Return the windows of this device: those with its events or blocks, and those without any event at all."""
    windows = rank.table("windows")
    blocks = rank.table("initial_blocks")
    with_blocks = set(blocks["window"][blocks["device"] == rank.string_id(device)].tolist())
    chosen = []
    for row in range(len(windows)):
        first, count = int(windows["first_event"][row]), int(windows["num_events"][row])
        if row in with_blocks or count == 0 or of_device[first : first + count].any():
            chosen.append(row)
    return chosen


def _epoch_windows(rank: RankTrace, rows: list[int]) -> list[tuple[int, ...]]:
    """Return the windows of each epoch; one empty epoch where there are none."""
    continues = rank.table("windows")["continues"]
    groups: list[list[int]] = []
    for row in rows:
        if groups and continues[row]:
            groups[-1].append(row)
        else:
            groups.append([row])
    return [tuple(group) for group in groups] or [()]


def _epoch(rank: RankTrace, start: int, stop: int, windows: tuple[int, ...]) -> Epoch:
    table = rank.table("windows")
    start_ns = int(table["start_ns"][windows[0]]) if windows else NULL
    end_ns = int(table["end_ns"][windows[-1]]) if windows else NULL
    return Epoch(
        start=start,
        stop=stop,
        windows=windows,
        start_ns=None if start_ns == NULL else start_ns,
        end_ns=None if end_ns == NULL else end_ns,
    )


def _times(
    event_ns: IntArray, of_event: IntArray, epochs: tuple[Epoch, ...], num_moments: int
) -> tuple[IntArray, bool]:
    """Return the time of each moment and whether any time was recorded."""
    times = np.full(num_moments, NULL, np.int64)
    times[of_event] = event_ns
    for epoch in epochs:
        first = int(times[epoch.start + 1]) if epoch.start + 1 < epoch.stop else NULL
        known = [time for time in (epoch.start_ns, first) if time is not None and time != NULL]
        if known:
            times[epoch.start] = min(known)
    has_times = bool(np.any(times != NULL))
    # Nulls are the smallest integer, so that the running maximum fills them with the time before. Clocks of several
    # threads may disagree by a microsecond; the order of rows is the order of events.
    filled = np.maximum.accumulate(times)
    return np.where(filled == NULL, 0, filled), has_times
