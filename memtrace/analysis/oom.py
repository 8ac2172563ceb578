"""The out-of-memory that a run died of, as far as it was recorded.

In: `DeviceHistory` with an oom event. Out: `OomResult`. Figures of the allocator (reserved but unallocated, largest
free block) stand in a snapshot taken at the failure; where the history went on, the replay tells them.
"""

from __future__ import annotations

import numpy as np

from memtrace.allocator.replay import state_at
from memtrace.analysis.history import DeviceHistory
from memtrace.analysis.marks import module_at, phase_at, step_at
from memtrace.analysis.results import OomResult
from memtrace.schema.names import Action, BlockState
from memtrace.store.columns import NULL


def find_oom(history: DeviceHistory) -> OomResult | None:
    """Return the last out-of-memory of the history."""
    found = np.flatnonzero(history.moments.is_action(history.rank, Action.OOM))
    if not len(found):
        return None
    event = history.rank.table("events").row(int(history.moments.rows[found[-1]]))
    time_ns, request_bytes, free_bytes = event["time_ns"], event["size_bytes"], event["device_free_bytes"]
    if _is_last(history, int(found[-1])):
        unallocated, largest = _free_in_segments(history)
    else:
        unallocated, largest = _free_in_replay(history, int(history.moments.rows[found[-1]]))
    return OomResult(
        step=None if time_ns is None else step_at(history, time_ns),
        phase=None if time_ns is None else phase_at(history, time_ns),
        module=None if time_ns is None else module_at(history, time_ns),
        time_ns=time_ns,
        request_bytes=request_bytes,
        free_bytes=free_bytes,
        reserved_unallocated_bytes=unallocated,
        largest_free_block_bytes=largest,
        cause=_cause(request_bytes, free_bytes, unallocated),
    )


def _is_last(history: DeviceHistory, position: int) -> bool:
    """Return whether nothing changed after an event, so that the final segments are those of that moment."""
    changes = history.moments.is_action(
        history.rank, *(one for one in Action if one not in (Action.OOM, Action.SNAPSHOT, Action.ANNOTATE))
    )
    return not changes[position + 1 :].any()


def _free_in_segments(history: DeviceHistory) -> tuple[int | None, int | None]:
    """Return free bytes inside segments, and the largest free block."""
    rank = history.rank
    segments, blocks = rank.table("segments"), rank.table("blocks")
    of_device = segments["device"] == rank.string_id(history.device)
    if not of_device.any():
        return None, None
    free = of_device[blocks["segment"]] & (blocks["state"] == rank.string_id(BlockState.INACTIVE.value))
    sizes = blocks["size_bytes"][free & (blocks["size_bytes"] != NULL)]
    unallocated = int((segments["total_bytes"] - segments["allocated_bytes"])[of_device].sum())
    return unallocated, int(sizes.max()) if len(sizes) else 0


def _free_in_replay(history: DeviceHistory, row: int) -> tuple[int | None, int | None]:
    """Return the same two of the model's state at an event, if the model reproduced the history."""
    if history.replayed is None or history.replayed.allocated is None:
        return None, None
    state = state_at(history.rank, history.device, row)
    if state is None:
        return None, None
    return state.reserved_bytes - state.allocated_bytes, state.largest_free_block_bytes


def _cause(request_bytes: int, free_bytes: int | None, unallocated_bytes: int | None) -> str | None:
    """Return capacity where even all free memory in one piece would not do, else fragmentation; `None` if not known."""
    if free_bytes is None or unallocated_bytes is None:
        return None
    return "capacity" if request_bytes > free_bytes + unallocated_bytes else "fragmentation"
