"""What each step and each of its phases needed.

In: `DeviceHistory` with the steps and phases that hooks or a profiler marked. Out: a `StepResult` a step, and the
moments of a step for its peak. Step 0, before training began, is no step of its own in the list.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from memtrace.analysis.device.device_history import DeviceHistory
from memtrace.analysis.device.owned_bytes import owned_at_step_ends
from memtrace.analysis.device.peak import state_at
from memtrace.analysis.events.moments import SEGMENT_SIGNS
from memtrace.analysis.results.report import OwnedBytes, PhaseResult, State, StepResult
from memtrace.schema.names import CpuEvents, Phase
from memtrace.store.columns import NULL, IntArray

_OF_CPU = frozenset(CpuEvents)


@dataclass(frozen=True, slots=True, kw_only=True)
class StepSpan:
    """The moments of one step that is in the history."""

    row: int
    """Row of the steps table."""
    step: int
    first: int
    """Moment at which the step before it ended."""
    last: int
    """Last moment of the step."""
    recorded: bool
    """Whether all of it is there; else it is a step that did not end."""


def step_spans(history: DeviceHistory) -> dict[int, StepSpan]:
    """Return the moments of every step with a history, by row of the steps table, in order."""
    steps, spans = history.rank.table("steps"), {}
    if not history.has_history or not history.moments.has_times:
        return {}
    for row in range(len(steps)):
        start_ns, end_ns = int(steps["start_ns"][row]), int(steps["end_ns"][row])
        recorded = bool(steps["recorded"][row])
        if not recorded and end_ns != NULL:
            continue
        first, last = _moments_between(history, start_ns, None if end_ns == NULL else end_ns)
        if recorded or last > first:
            spans[row] = StepSpan(row=row, step=int(steps["step"][row]), first=first, last=last, recorded=recorded)
    return spans


def step_results(history: DeviceHistory, spans: dict[int, StepSpan]) -> tuple[StepResult, ...]:
    """Return what each step needed."""
    steps = history.rank.table("steps")
    phases = _phases_by_step(history)
    owned, growths = owned_at_step_ends(history), _growths(history)
    rows = [row for row in range(len(steps)) if int(steps["step"][row]) > 0]
    results = (
        _step_result(history, row, spans.get(row), phases.get(int(steps["step"][row]), ()), owned, growths)
        for row in rows
    )
    return tuple(one for one in results if not _is_teardown(one))


def _is_teardown(result: StepResult) -> bool:
    """Return whether this is no step but what came after the last one: it did not end, and no training is in it."""
    training = {Phase.FORWARD.value, Phase.BACKWARD.value, Phase.OPTIMIZER.value}
    has_training = result.num_microbatches > 0 or any(one.phase in training for one in result.phases)
    return result.end_ns is None and not has_training


def _step_result(
    history: DeviceHistory,
    row: int,
    span: StepSpan | None,
    phase_rows: Sequence[int],
    owned: Mapping[int, tuple[OwnedBytes, ...]],
    growths: IntArray,
) -> StepResult:
    values = history.rank.table("steps").row(row)
    levels = history.levels
    return StepResult(
        step=values["step"],
        skipped=values["skipped"],
        recorded=values["recorded"],
        num_microbatches=values["num_microbatches"],
        start_ns=values["start_ns"],
        end_ns=values["end_ns"],
        peak_allocated_bytes=_largest(levels.allocated, span),
        peak_requested_bytes=_largest(levels.requested, span),
        max_reserved_bytes=_largest(levels.reserved, span),
        num_device_mallocs=_num_device_mallocs(history, row, span, growths),
        host_rss_bytes=values["host_rss_bytes"],
        high_water_bytes=values["high_water_bytes"] if has_high_water_marks(history) else None,
        peak_host_rss_bytes=values["peak_host_rss_bytes"],
        end=None if span is None or values["end_ns"] is None else _end_of_step(history, span, values),
        phases=tuple(_phase_result(history, one, known=span is not None) for one in phase_rows),
        owned=owned.get(values["step"], ()),
    )


def has_high_water_marks(history: DeviceHistory) -> bool:
    """Return whether the high-water marks of steps are those of this device."""
    sources = history.rank.header.get("sources") or {}
    return history.owns_marks or (history.is_cpu and sources.get("events") in _OF_CPU)


def _end_of_step(history: DeviceHistory, span: StepSpan, values: dict[str, int | None]) -> State:
    """Return the state at the end of a step, with what torch and the driver said then."""
    state = state_at(history, span.last)
    changed: dict[str, Any] = {}
    if history.owns_marks and not history.is_cpu:
        used, reserved = values["device_used_bytes"], values["reserved_bytes"]
        changed["device_used_bytes"] = used
        if values["allocated_bytes"] is not None:
            changed["allocated_bytes"] = values["allocated_bytes"]
        if reserved is not None:
            changed["reserved_bytes"] = reserved
            changed["non_torch_bytes"] = None if used is None else used - reserved
    return replace(state, **changed)


def _growths(history: DeviceHistory) -> IntArray:
    """Return the moments at which segments were taken from the device, in order."""
    growing = (action for action, sign in SEGMENT_SIGNS.items() if sign > 0)
    return history.moments.of_event[history.moments.is_action(history.rank, *growing)]


def _num_device_mallocs(history: DeviceHistory, row: int, span: StepSpan | None, growths: IntArray) -> int | None:
    """Return the segments taken from the device in a step: by the marks, else by the events."""
    if history.is_cpu:
        return None
    counts = history.rank.table("steps")["num_device_mallocs"]
    if history.owns_marks and row > 0 and counts[row] != NULL and counts[row - 1] != NULL:
        return int(counts[row] - counts[row - 1])
    if span is None:
        return None
    before, after = np.searchsorted(growths, [span.first, span.last], side="right").tolist()
    return int(after - before)


def _phases_by_step(history: DeviceHistory) -> dict[int, list[int]]:
    """Return the rows of the phases table by step, in order of time."""
    phases = history.rank.table("phases")
    by_step: dict[int, list[int]] = {}
    for row in np.argsort(phases["start_ns"], kind="stable").tolist():
        by_step.setdefault(int(phases["step"][row]), []).append(row)
    return by_step


def _phase_result(history: DeviceHistory, row: int, *, known: bool) -> PhaseResult:
    values = history.rank.table("phases").row(row)
    span = _moments_between(history, values["start_ns"], values["end_ns"]) if known else None
    return PhaseResult(
        phase=history.rank.text(values["phase"]) or Phase.OTHER.value,
        microbatch=values["microbatch"],
        start_ns=values["start_ns"],
        end_ns=values["end_ns"],
        peak_allocated_bytes=_largest_in(history.levels.allocated, span),
        peak_requested_bytes=_largest_in(history.levels.requested, span),
    )


def _moments_between(history: DeviceHistory, start_ns: int, end_ns: int | None) -> tuple[int, int]:
    """Return the first and last moment of a stretch of time: from the state at its start to that at its end."""
    moments = history.moments
    first = moments.at_time(start_ns)
    # A clock that was set back during the stretch lets it end before it began: then its start is all that is known.
    last = max(first, len(moments) - 1 if end_ns is None else moments.at_time(end_ns))
    if first < last and any(epoch.start == first + 1 for epoch in moments.epochs):
        # Nothing was recorded when it began: its first known state is the start of the next epoch.
        first += 1
    return first, last


def _largest(level: IntArray | None, span: StepSpan | None) -> int | None:
    return None if span is None else _largest_in(level, (span.first, span.last))


def _largest_in(level: IntArray | None, span: tuple[int, int] | None) -> int | None:
    return None if level is None or span is None else int(level[span[0] : span[1] + 1].max())
