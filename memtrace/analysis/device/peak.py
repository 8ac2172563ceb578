"""The state of a device at a moment, and its peak in a stretch of moments.

In: `DeviceHistory`. Out: `State`, `Peak`. A peak is the moment of largest allocated bytes, of requested bytes where
allocated cannot be known without the allocator model; the earliest of equals.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict

import numpy as np

from memtrace.analysis.device.device_history import DeviceHistory
from memtrace.analysis.device.marks import module_at, phase_at, step_at
from memtrace.analysis.results.report import Peak, State
from memtrace.schema.names import BlockState, Category, Decision
from memtrace.store.columns import NULL, IntArray

EXACT = (Decision.OWNER, Decision.HOOK)
"""Decisions that are no inference."""

_UNRECORDED = State(
    allocated_bytes=None,
    requested_bytes=None,
    pending_free_bytes=None,
    reserved_bytes=None,
    device_used_bytes=None,
    non_torch_bytes=None,
    by_category={Category.UNKNOWN.value: 0},
    by_decision={Decision.UNKNOWN.value: 0},
)
"""The state of a device of which nothing was recorded. The contract wants unknown always there; all else is null."""


def state_at(history: DeviceHistory, moment: int) -> State:
    """Return the memory of the device at a moment."""
    levels = history.levels
    by_category: dict[str, int] = {}
    by_decision: dict[str, int] = {}
    exact: dict[str, int] = {}
    for (category, decision), level in levels.by_kind.items():
        num_bytes = int(level[moment])
        if num_bytes or category is Category.UNKNOWN:
            by_category[category.value] = by_category.get(category.value, 0) + num_bytes
            by_decision[decision.value] = by_decision.get(decision.value, 0) + num_bytes
            if decision in EXACT:
                exact[category.value] = exact.get(category.value, 0) + num_bytes
    return State(
        allocated_bytes=_value(levels.allocated, moment),
        requested_bytes=int(levels.requested[moment]),
        pending_free_bytes=_value(levels.pending, moment),
        reserved_bytes=_value(levels.reserved, moment),
        device_used_bytes=None,
        non_torch_bytes=None,
        by_category=in_order(by_category, Category),
        by_decision=in_order(by_decision, Decision),
        exact_by_category=in_order(exact, Category),
    )


def in_order(values: Mapping[str, int], names: type[Category] | type[Decision]) -> dict[str, int]:
    """Return the values in the order of an enum, so that the same trace gives the same bytes."""
    return {name.value: values[name.value] for name in names if name.value in values}


def end_state(history: DeviceHistory) -> State:
    """Return the state after the last event, completed by what a final snapshot says exactly."""
    if not history.has_history and _of_segments(history) is not None:
        return _snapshot_state(history)
    if not len(history.moments.rows) and not len(history.lifetimes) and not history.levels.requested.any():
        return _UNRECORDED
    state = state_at(history, history.last_moment)
    totals = _of_segments(history)
    if totals is None:
        return state
    reserved, allocated, _ = totals
    return _replaced(state, allocated_bytes=allocated, reserved_bytes=reserved)


def peak_between(history: DeviceHistory, first: int, last: int) -> Peak:
    """Return the peak among the moments from `first` to `last`, both included."""
    levels, moments = history.levels, history.moments
    level = levels.requested if levels.allocated is None else levels.allocated
    moment = first + int(np.argmax(level[first : last + 1]))
    time_ns = int(moments.time_ns[moment]) if moments.has_times else None
    at_start = moments.is_epoch_start(moment)
    return Peak(
        **asdict(state_at(history, moment)),
        time_ns=time_ns,
        step=None if time_ns is None else step_at(history, time_ns),
        phase=None if time_ns is None else phase_at(history, time_ns),
        module=None if time_ns is None else module_at(history, time_ns),
        event=None if at_start else int(moments.event[moment]),
    )


def peak_without_history(end: State) -> Peak:
    """Return the peak where only one state is known: that state, at no known time."""
    return Peak(**asdict(end), time_ns=None, step=None, phase=None, module=None, event=None)


def moment_of(history: DeviceHistory, peak: Peak) -> int:
    """Return the moment of a peak that `peak_between` found; the last moment where there is no history."""
    if peak.event is None:
        starts = [epoch.start for epoch in history.moments.epochs]
        same = [one for one in starts if history.levels.requested[one] == peak.requested_bytes]
        return same[0] if history.has_history and same else history.last_moment
    return int(history.moments.of_event[np.searchsorted(history.moments.rows, peak.event)])


def _value(level: IntArray | None, moment: int) -> int | None:
    return None if level is None else int(level[moment])


def _replaced(state: State, *, allocated_bytes: int | None, reserved_bytes: int | None) -> State:
    values = asdict(state)
    return State(**{**values, "allocated_bytes": allocated_bytes, "reserved_bytes": reserved_bytes})


def _of_segments(history: DeviceHistory) -> tuple[int, int, int | None] | None:
    """Return reserved, allocated and requested bytes of the final segments; `None` without a final snapshot."""
    segments = history.rank.table("segments")
    chosen = np.flatnonzero(segments["device"] == history.rank.string_id(history.device))
    if not len(segments):
        return None
    requested = segments["requested_bytes"][chosen]
    return (
        int(segments["total_bytes"][chosen].sum()),
        int(segments["allocated_bytes"][chosen].sum()),
        None if np.any(requested == NULL) else int(requested.sum()),
    )


def _snapshot_state(history: DeviceHistory) -> State:
    """Return the state that final segments and blocks alone tell."""
    rank = history.rank
    blocks, segments = rank.table("blocks"), rank.table("segments")
    of_device = segments["device"] == rank.string_id(history.device)
    own = of_device[blocks["segment"]] if len(blocks) else np.zeros(0, np.bool_)
    state, requested = blocks["state"], blocks["requested_bytes"]
    in_use = own & (state == rank.string_id(BlockState.ACTIVE_ALLOCATED.value))
    pending = own & (state == rank.string_id(BlockState.ACTIVE_PENDING_FREE.value))
    known = not np.any(requested[in_use | pending] == NULL)
    num_bytes = int(requested[in_use].sum()) if known else None
    unknown = num_bytes if num_bytes is not None else 0
    return State(
        allocated_bytes=int(segments["allocated_bytes"][of_device].sum()),
        requested_bytes=num_bytes,
        pending_free_bytes=int(requested[pending].sum()) if known else None,
        reserved_bytes=int(segments["total_bytes"][of_device].sum()),
        device_used_bytes=None,
        non_torch_bytes=None,
        by_category={Category.UNKNOWN.value: unknown},
        by_decision={Decision.UNKNOWN.value: unknown},
    )
