"""The first step as far as it was recorded, as the pattern of those to come.

In: `DeviceHistory` and the spans of its steps. Out: `FirstLoop`: which moments repeat, which gradients it made, where
`zero_grad` ran, and what is still in use when the next step begins. `None` where no backward pass of it ended.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from memtrace.analysis.attribution.attribute import CATEGORIES
from memtrace.analysis.attribution.size_matching import count_sizes, match_sizes
from memtrace.analysis.device.device_history import DeviceHistory
from memtrace.analysis.device.steps import StepSpan
from memtrace.schema.names import Category, Phase, Source
from memtrace.store.columns import NULL, BoolArray, IntArray

_PADDED = 1.25
"""How much larger than its parameters what holds their gradients may be: shards are padded to equal sizes."""

ZERO_GRAD = "Optimizer.zero_grad#"
"""How torch names the range that `Optimizer.zero_grad` marks."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FirstLoop:
    """Moments of the first step and what stays of it."""

    first: int
    """Moment at which it began: that of the first forward."""
    last: int
    """Last moment of the pattern: its end, or that of the last backward pass that ended."""
    known_until: int
    """Last moment that tells what stays: the next forward, else the end of the `zero_grad` after the step."""
    sees_next_forward: bool
    """Whether the next step's forward began."""
    has_optimizer_step: bool
    """Whether whatever updates the parameters is in the pattern: not if the step broke off or a scaler skipped it."""
    accumulates: bool
    """Whether more backward passes follow the last of the pattern before the optimizer's step."""
    backward: int
    """Moment at which its first backward pass began."""
    backward_end: int
    """Moment at which its last backward pass ended."""
    category: IntArray
    """Code of the category of each allocation; gradients that no owner names are told by their sizes."""
    inferred: BoolArray
    """Whether that category is inferred here."""
    zero_grads: tuple[tuple[int, int], ...]
    """First and last moment of each `zero_grad` up to `known_until`."""


def read_first_loop(history: DeviceHistory, spans: Mapping[int, StepSpan]) -> FirstLoop | None:
    """Return the first step of a device; `None` where it is not there or no backward pass of it ended."""
    of_first = [span for span in spans.values() if span.step == 1]
    backward = _ended_phases(history, Phase.BACKWARD)
    if not of_first or not len(backward):
        return None
    span, moments, phases = of_first[0], history.moments, history.rank.table("phases")
    steps = history.rank.table("steps")
    is_over = int(steps["end_ns"][span.row]) != NULL
    if history.rank.source == Source.SNAPSHOT.value:
        # Inferred steps end where the history does, in the middle of an optimizer's step perhaps.
        is_over &= span.last < history.last_moment
    backward_end = moments.at_time(int(phases["end_ns"][backward].max()))
    last = span.last if is_over else backward_end
    next_forward = _next_forward(history)
    zero_grads = _zero_grads(history)
    if next_forward is not None:
        known_until = next_forward
    else:
        known_until = max([end for start, end in zero_grads if start >= last and is_over], default=last)
    category, inferred = _categories(history, span.first, last, backward)
    return FirstLoop(
        first=span.first,
        last=last,
        known_until=known_until,
        sees_next_forward=next_forward is not None,
        has_optimizer_step=is_over and not steps["skipped"][span.row],
        accumulates=not is_over and _forward_follows(history, int(phases["end_ns"][backward].max())),
        backward=moments.at_time(int(phases["start_ns"][backward].min())),
        backward_end=backward_end,
        category=category,
        inferred=inferred,
        zero_grads=tuple(one for one in zero_grads if one[1] <= known_until),
    )


def _ended_phases(history: DeviceHistory, phase: Phase) -> IntArray:
    """Return the rows of the phases of this name in step 1 that ended."""
    phases = history.rank.table("phases")
    named = phases["phase"] == history.rank.string_id(phase.value)
    return np.flatnonzero(named & (phases["step"] == 1) & (phases["end_ns"] != NULL))


def _next_forward(history: DeviceHistory) -> int | None:
    """Return the moment at which the forward of step 2 began."""
    phases = history.rank.table("phases")
    named = phases["phase"] == history.rank.string_id(Phase.FORWARD.value)
    starts = phases["start_ns"][named & (phases["step"] == 2)]
    return history.moments.at_time(int(starts.min())) if len(starts) else None


def _forward_follows(history: DeviceHistory, end_ns: int) -> bool:
    phases = history.rank.table("phases")
    named = phases["phase"] == history.rank.string_id(Phase.FORWARD.value)
    return bool(np.any(named & (phases["step"] == 1) & (phases["start_ns"] >= end_ns)))


def _zero_grads(history: DeviceHistory) -> list[tuple[int, int]]:
    """Return first and last moment of each `zero_grad` that was marked and ended, in order."""
    annotations, rank = history.rank.table("annotations"), history.rank
    ids = [at for at, text in enumerate(rank.strings) if text.startswith(ZERO_GRAD)]
    rows = np.flatnonzero(np.isin(annotations["name"], ids) & ~annotations.is_null("start_ns"))
    rows = rows[annotations["end_ns"][rows] != NULL]
    starts, ends = (history.moments.at_times(annotations[name][rows]) for name in ("start_ns", "end_ns"))
    return sorted(zip(starts.tolist(), ends.tolist(), strict=True))


def _categories(history: DeviceHistory, first: int, last: int, backward: IntArray) -> tuple[IntArray, BoolArray]:
    """Return the category of each allocation, where what backward made and kept is as large as parameters: gradient."""
    lifetimes, phases = history.lifetimes, history.rank.table("phases")
    category = history.attribution.category.astype(np.int64)
    inferred = np.zeros(len(category), np.bool_)
    gradient, parameter = CATEGORIES.index(Category.GRADIENT), CATEGORIES.index(Category.PARAMETER)
    kept = (lifetimes.start > first) & (lifetimes.start <= last) & (lifetimes.in_use_end > last)
    in_backward = np.zeros(len(category), np.bool_)
    for row in backward.tolist():
        begin, end = (history.moments.at_time(int(phases[name][row])) for name in ("start_ns", "end_ns"))
        in_backward |= (lifetimes.start > begin) & (lifetimes.start <= end)
    owned = np.isin(category, [CATEGORIES.index(one) for one in (Category.PARAMETER, Category.BUFFER)])
    rows = np.flatnonzero(kept & in_backward & ~owned & (category != gradient))
    # Those that owners name already leave fewer parameters to match.
    counts = count_sizes(lifetimes.size_bytes[category == parameter])
    counts.subtract(count_sizes(lifetimes.size_bytes[kept & (category == gradient)]))
    rows = rows[np.argsort(lifetimes.start[rows], kind="stable")]
    matched = match_sizes(rows, lifetimes.size_bytes, counts, per_phase=np.zeros(len(category), np.intp))
    if (history.rank.header.get("world_size") or 1) > 1:
        matched = np.union1d(matched, _joint_gradients(history, category, np.setdiff1d(rows, matched), counts, matched))
    category[matched] = gradient
    inferred[matched] = True
    return category, inferred


def _joint_gradients(
    history: DeviceHistory, category: IntArray, rows: IntArray, missing: Counter[int], matched: IntArray
) -> IntArray:
    """Return what holds the gradients of several parameters at once, as a reduce-scatter of FSDP makes them.

    Its allocations are of no parameter's size, but together about as large as the parameters without a gradient.
    """
    sizes = history.lifetimes.size_bytes
    unnamed = [CATEGORIES.index(one) for one in (Category.UNKNOWN, Category.TEMPORARY, Category.ACTIVATION)]
    rest = rows[np.isin(category[rows], unnamed)]
    without = sum(size * count for size, count in missing.items() if count > 0) - int(sizes[matched].sum())
    return rest if 0 < int(sizes[rest].sum()) <= _PADDED * without else np.zeros(0, np.int64)
