"""The memory of a run over its steps, so that runs of other lengths and clocks lie on one axis.

In: `RankReport`. Out: `StepCurve`. On the axis a step's start is its number and its end the next number.
"""

from __future__ import annotations

import numpy as np

from memtrace.analysis.results.diff import StepCurve
from memtrace.analysis.results.report import RankReport
from memtrace.store.columns import IntArray


def step_curve(rank: RankReport, *, allocated: bool) -> StepCurve | None:
    """Return the memory of a rank over its steps; `None` without steps or a history."""
    timeline = rank.timeline
    ended = [one for one in rank.steps if one.start_ns is not None and one.end_ns is not None]
    if timeline is None or not ended:
        return None
    level = timeline.allocated_bytes if allocated else timeline.requested_bytes
    if level is None:
        return None
    # On the axis a step's start is its number, and its end the next number; what lies between steps is left out.
    starts = np.array([one.start_ns for one in ended], np.int64)
    ends = np.array([one.end_ns for one in ended], np.int64)
    numbers = np.array([one.step for one in ended], np.int64)
    at = np.searchsorted(starts, timeline.time_ns, side="right") - 1
    inside = (at >= 0) & (timeline.time_ns <= ends[np.maximum(at, 0)])
    chosen = np.flatnonzero(inside)
    if not len(chosen):
        return None
    return StepCurve(
        steps=_places(timeline.time_ns[chosen], at[chosen], starts, ends, numbers), num_bytes=level[chosen]
    )


def _places(times: IntArray, at: IntArray, starts: IntArray, ends: IntArray, numbers: IntArray) -> tuple[float, ...]:
    length = np.maximum(ends - starts, 1)
    return tuple((numbers[at] + (times - starts[at]) / length[at]).tolist())
