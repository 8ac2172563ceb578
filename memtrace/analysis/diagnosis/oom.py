"""The out-of-memory that a run died of, or that it would have died of on a smaller device.

In: `DeviceHistory`, with an oom event or a capacity to judge it by. Out: `OomResult`. Figures of the allocator
(reserved but unallocated, largest free block) stand in a snapshot taken at the failure; where the history went on, the
replay tells them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from memtrace.allocator.replay import state_at
from memtrace.analysis.device.device_history import DeviceHistory
from memtrace.analysis.device.marks import module_at, phase_at, step_at
from memtrace.analysis.device.program_lines import place_of_stack
from memtrace.analysis.device.steps import has_high_water_marks, step_spans
from memtrace.analysis.diagnosis.oom_next_step import needs_after
from memtrace.analysis.results.report import Leak, OomResult, StepNeeds
from memtrace.analysis.sentences.oom import explain, is_limited
from memtrace.schema.names import Action, BlockState
from memtrace.store.columns import NULL

_LEAST_SHARE_OF_A_CAUSE = 0.1
"""What is less than this part of the bytes that were missing explains nothing."""


def find_oom(
    history: DeviceHistory,
    *,
    capacity_bytes: int | None = None,
    judged_by: int | None = None,
    leaks: Sequence[Leak] = (),
) -> OomResult | None:
    """Return the last out-of-memory of the history; without one, that on a device of `judged_by` bytes.

    `capacity_bytes` is what the device had on which it was recorded; `leaks` are named as what filled it.
    """
    found = np.flatnonzero(history.moments.is_action(history.rank, Action.OOM))
    oom: OomResult | None = None
    if len(found):
        oom = _recorded(history, int(found[-1]), capacity_bytes)
    elif judged_by is not None and history.has_history:
        oom = _earlier(_by_mark(history, judged_by), _predicted(history, judged_by))
    if oom is None:
        return None
    needs = needs_after(history, oom.step)
    if needs is not None:
        needs = replace(needs, is_cause=_is_cause(needs, oom))
    oom = replace(oom, needs=needs)
    return replace(oom, explanation=explain(oom, leaks))


def _is_cause(needs: StepNeeds, oom: OomResult) -> bool:
    """Return whether what the step before left behind explains a failure, and is not a trifle beside what was missing.

    A step that would fit if it did the same again as the one before fails of something that it does otherwise.
    """
    if oom.predicted and oom.capacity_bytes is not None and needs.next_bytes <= oom.capacity_bytes:
        return False
    reached = (oom.in_use_bytes or 0) + (oom.request_bytes or 0)
    unexplained = max(oom.missing_bytes or 0, reached - needs.peak_bytes)
    left = sum(one.num_bytes for one in needs.resident)
    return left >= _LEAST_SHARE_OF_A_CAUSE * unexplained


def _recorded(history: DeviceHistory, position: int, capacity_bytes: int | None) -> OomResult:
    """Return what is known of an oom event; `position` counts the events of the device."""
    row, moment = int(history.moments.rows[position]), int(history.moments.of_event[position])
    event = history.rank.table("events").row(row)
    request_bytes, free_bytes = event["size_bytes"], event["device_free_bytes"]
    if _is_last(history, position):
        unallocated, largest = _free_in_segments(history)
    else:
        unallocated, largest = _free_in_replay(history, row)
    reserved = None if history.levels.reserved is None else int(history.levels.reserved[moment])
    return OomResult(
        **_place(history, event["time_ns"], event["stack"]),
        request_bytes=request_bytes,
        free_bytes=free_bytes,
        reserved_unallocated_bytes=unallocated,
        largest_free_block_bytes=largest,
        cause=_cause(request_bytes, free_bytes, unallocated),
        capacity_bytes=capacity_bytes,
        in_use_bytes=_in_use(history, moment),
        reserved_bytes=reserved,
        non_torch_bytes=_non_torch(capacity_bytes, free_bytes, reserved),
        missing_bytes=None if free_bytes is None else max(request_bytes - free_bytes, 0),
    )


def _predicted(history: DeviceHistory, capacity_bytes: int) -> OomResult | None:
    """Return the first request for which a device of this capacity has no room, were it torch's alone."""
    levels, moments = history.levels, history.moments
    level = levels.requested if levels.allocated is None else levels.allocated
    beyond = np.flatnonzero(level > capacity_bytes)
    if not len(beyond):
        return None
    moment = int(beyond[0])
    is_start = moments.is_epoch_start(moment)
    event = None if is_start else history.rank.table("events").row(int(moments.event[moment]))
    before = int(level[moment] if is_start else level[moment - 1])
    time_ns = int(moments.time_ns[moment]) if moments.has_times else None
    return OomResult(
        **_place(history, time_ns, None if event is None else event["stack"]),
        request_bytes=None if event is None else event["size_bytes"],
        free_bytes=max(capacity_bytes - before, 0),
        reserved_unallocated_bytes=None,
        largest_free_block_bytes=None,
        cause="capacity",
        predicted=True,
        capacity_bytes=capacity_bytes,
        in_use_bytes=before,
        missing_bytes=_highest_from(history, moment) - capacity_bytes,
    )


def _by_mark(history: DeviceHistory, capacity_bytes: int) -> OomResult | None:
    """Return the first step that was not recorded and whose high-water mark is beyond a capacity."""
    if not has_high_water_marks(history):
        return None
    steps = history.rank.table("steps")
    beyond = ~steps["recorded"] & (steps["high_water_bytes"] != NULL) & (steps["high_water_bytes"] > capacity_bytes)
    if not beyond.any():
        return None
    row = steps.row(int(np.flatnonzero(beyond)[0]))
    return OomResult(
        step=row["step"],
        phase=None,
        module=None,
        time_ns=None,
        request_bytes=None,
        free_bytes=None,
        reserved_unallocated_bytes=None,
        largest_free_block_bytes=None,
        cause="capacity",
        predicted=True,
        capacity_bytes=capacity_bytes,
        high_water_bytes=row["high_water_bytes"],
        missing_bytes=row["high_water_bytes"] - capacity_bytes,
    )


def _earlier(one: OomResult | None, other: OomResult | None) -> OomResult | None:
    """Return the failure that would have come first; what is in no step came before all of them."""
    if one is None or other is None:
        return other if one is None else one
    return one if (one.step or 0) < (other.step or 0) else other


def _highest_from(history: DeviceHistory, moment: int) -> int:
    """Return the highest level from a moment to the end of the step that it is in, or of all that was recorded."""
    levels, moments = history.levels, history.moments
    level = levels.requested if levels.allocated is None else levels.allocated
    ends = [span.last for span in step_spans(history).values() if span.first <= moment <= span.last]
    return int(level[moment : (ends[0] if moments.has_times and ends else history.last_moment) + 1].max())


def _place(history: DeviceHistory, time_ns: int | None, stack: int | None) -> dict[str, Any]:
    """Return when and where in the program something happened, as fields of an `OomResult`."""
    module = None if time_ns is None else module_at(history, time_ns)
    return {
        "time_ns": time_ns,
        "step": None if time_ns is None else step_at(history, time_ns),
        "phase": None if time_ns is None else phase_at(history, time_ns),
        "module": module,
        "where": place_of_stack(history, stack, module),
    }


def _non_torch(capacity_bytes: int | None, free_bytes: int | None, reserved_bytes: int | None) -> int | None:
    """Return what others hold on the device; `None` where not known, or where the capacity is of another device."""
    if capacity_bytes is None or free_bytes is None or reserved_bytes is None:
        return None
    others = capacity_bytes - free_bytes - reserved_bytes
    return others if others >= 0 else None


def _in_use(history: DeviceHistory, moment: int) -> int:
    levels = history.levels
    return int((levels.requested if levels.allocated is None else levels.allocated)[moment])


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
    # Where the device had room, the process was not allowed to take it: what is free does not count.
    within_reach = 0 if is_limited(request_bytes, free_bytes) else free_bytes
    return "capacity" if request_bytes > within_reach + unallocated_bytes else "fragmentation"
