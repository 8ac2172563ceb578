"""The two peaks that differ: that of the first step, and that of every step after it, recorded or predicted.

In: `DeviceHistory` and the spans of its steps. Out: `Peak`s, `None` where nothing tells.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from memtrace.analysis.attribution.attribute import CATEGORIES
from memtrace.analysis.device.device_history import DeviceHistory
from memtrace.analysis.device.peak import peak_between
from memtrace.analysis.device.steps import StepSpan
from memtrace.analysis.first_step.steady_state import predict_steady_state
from memtrace.analysis.results.report import Peak
from memtrace.schema.names import Category, Source
from memtrace.store.columns import NULL, BoolArray

_FEW = 0.1
"""How much of the parameters' bytes may be something else, as buffers are that nothing tells."""


def knows_first_step(history: DeviceHistory) -> bool:
    """Return whether step 1 is that of training: the steps of a snapshot are counted from where its history starts.

    Where parameters, and no states, lived before that, and the step made the states, it is the first.
    """
    if history.rank.source != Source.SNAPSHOT.value or not history.lifetimes.is_initial.any():
        return True
    initial = _bytes_by_category(history, history.lifetimes.is_initial)
    made = _bytes_by_category(history, _made_in_first_step(history))
    parameters, states = initial[Category.PARAMETER], made[Category.OPTIMIZER_STATE]
    others = initial[Category.OPTIMIZER_STATE] + initial[Category.UNKNOWN]
    return 0 < parameters <= states * (1 + _FEW) and others <= _FEW * parameters


def _made_in_first_step(history: DeviceHistory) -> BoolArray:
    """Return which allocations step 1 made and did not free."""
    lifetimes, steps = history.lifetimes, history.rank.table("steps")
    ends = steps["end_ns"][(steps["step"] == 1) & (steps["end_ns"] != NULL)]
    if not len(ends) or not history.moments.has_times:
        return np.zeros(len(lifetimes), np.bool_)
    last = history.moments.at_time(int(ends[0]))
    stays = (lifetimes.in_use_end > last) | (lifetimes.in_use_end >= lifetimes.num_moments)
    return np.asarray(~lifetimes.is_initial & (lifetimes.start <= last) & stays)


def _bytes_by_category(history: DeviceHistory, chosen: BoolArray) -> dict[Category, int]:
    """Return the bytes of the chosen allocations by category."""
    category, size = history.attribution.category[chosen], history.lifetimes.size_bytes[chosen]
    return {one: int(size[category == code].sum()) for code, one in enumerate(CATEGORIES)}


def first_step_peak(history: DeviceHistory, spans: Mapping[int, StepSpan]) -> Peak | None:
    """Return the peak within step 1, as far as that was recorded."""
    if not knows_first_step(history):
        return None
    first = [span for span in spans.values() if span.step == 1]
    return peak_between(history, first[0].first, first[0].last) if first else None


def steady_state_peak(
    history: DeviceHistory,
    spans: Mapping[int, StepSpan],
    *,
    capacity_bytes: int | None,
    others_bytes: int | None = None,
) -> Peak | None:
    """Return the largest peak of a step after the first that was recorded to its end; predicted where there is none.

    A later step that did not end (it ran out of memory, perhaps) counts where it got beyond the prediction, which takes
    for granted that others hold `others_bytes` of the device, where no step says how much they do.
    """
    later = [span for span in spans.values() if span.step >= 2 and span.recorded]
    ended = [span for span in later if _has_end(history, span)]
    if ended or not knows_first_step(history):
        return _largest(history, ended or later)
    reached = _largest(history, later)
    non_torch_bytes = _non_torch_bytes(history)
    predicted = predict_steady_state(
        history,
        spans,
        capacity_bytes=capacity_bytes,
        non_torch_bytes=others_bytes if non_torch_bytes is None else non_torch_bytes,
    )
    if predicted is None or (reached is not None and _height(reached) > _height(predicted)):
        return reached
    return predicted


def by_category_difference(first: Peak | None, steady: Peak | None) -> dict[str, int] | None:
    """Return steady-state less first-step peak by category, requested bytes; `None` without both."""
    if first is None or steady is None:
        return None
    names = [one.value for one in Category if one.value in {*first.by_category, *steady.by_category}]
    return {name: steady.by_category.get(name, 0) - first.by_category.get(name, 0) for name in names}


def _has_end(history: DeviceHistory, span: StepSpan) -> bool:
    return int(history.rank.table("steps")["end_ns"][span.row]) != NULL


def _largest(history: DeviceHistory, spans: list[StepSpan]) -> Peak | None:
    level = history.levels.requested if history.levels.allocated is None else history.levels.allocated
    highest = max(spans, key=lambda span: int(level[span.first : span.last + 1].max()), default=None)
    return None if highest is None else peak_between(history, highest.first, highest.last)


def _height(peak: Peak) -> int:
    return peak.allocated_bytes or peak.requested_bytes or 0


def _non_torch_bytes(history: DeviceHistory) -> int | None:
    """Return what the device held beside torch's segments at the end of the last step that says so."""
    steps = history.rank.table("steps")
    known = (steps["device_used_bytes"] != NULL) & (steps["reserved_bytes"] != NULL)
    if history.is_cpu or not history.owns_marks or not known.any():
        return None
    beside = (steps["device_used_bytes"] - steps["reserved_bytes"])[known]
    return max(int(beside[-1]), 0)
