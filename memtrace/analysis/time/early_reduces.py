"""All-reduces of gradients in micro-batches before the last: under accumulation one at the end of the step is enough.

In: a rank whose backward passes are known. Out: `EarlyReduces`. An all-reduce counts for the backward pass in which it
was launched. Tensor parallelism reduces in every forward pass too, and must: where one is seen there, nothing is said.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np

from memtrace.analysis.time.gpu_activities import COMMUNICATION, COMPUTE, GpuActivities
from memtrace.analysis.time.intervals import Intervals
from memtrace.analysis.time.overlap import collective_kind
from memtrace.schema.names import Phase
from memtrace.store.columns import NULL, BoolArray
from memtrace.store.trace import RankTrace


@dataclass(frozen=True, slots=True, kw_only=True)
class EarlyReduces:
    """All-reduces that one at the end of the step would have made needless."""

    num_early: int
    num_last: int
    """All-reduces in the last micro-batches of the steps, which stay."""
    exposed_ns: int
    """Time in the early ones during which nothing was computed."""


def early_reduces(rank: RankTrace, steps: Collection[int]) -> EarlyReduces | None:
    """Return the all-reduces of some steps that came early; `None` where there are none, or they may be needed."""
    phases = rank.table("phases")
    known = np.isin(phases["step"], list(steps)) & (phases["end_ns"] != NULL)
    backward = known & (phases["phase"] == rank.string_id(Phase.BACKWARD.value))
    early = np.zeros(len(backward), np.bool_)
    for step in np.unique(phases["step"][backward]).tolist():
        of_step = backward & (phases["step"] == step)
        early |= of_step & (phases["microbatch"] < phases["microbatch"][of_step].max())
    forward = known & (phases["phase"] == rank.string_id(Phase.FORWARD.value))
    if not early.any():
        return None
    activities = GpuActivities.of_rank(rank)
    reduces = _all_reduces(rank, activities)
    in_early = reduces & _launched_in(rank, activities, early)
    if not in_early.any() or (reduces & _launched_in(rank, activities, forward)).any():
        return None
    in_last = reduces & _launched_in(rank, activities, backward & ~early)
    compute = activities.united(activities.sort == COMPUTE)
    return EarlyReduces(
        num_early=int(np.count_nonzero(in_early)),
        num_last=int(np.count_nonzero(in_last)),
        exposed_ns=(compute | activities.united(in_early)).length_ns - compute.length_ns,
    )


def _all_reduces(rank: RankTrace, activities: GpuActivities) -> BoolArray:
    """Return for each activity whether it is an all-reduce."""
    is_communication = activities.sort == COMMUNICATION
    names = np.unique(activities.name[is_communication]).tolist()
    reduces = [name for name in names if collective_kind(rank.strings[name]).lower() == "allreduce"]
    return np.asarray(is_communication & np.isin(activities.name, reduces))


def _launched_in(rank: RankTrace, activities: GpuActivities, phases: BoolArray) -> BoolArray:
    """Return for each activity whether it was launched within some rows of the phases."""
    table = rank.table("phases")
    spans = Intervals.united(table["start_ns"][phases], table["end_ns"][phases])
    if not len(spans.start_ns):
        return np.zeros(len(activities), np.bool_)
    at = np.searchsorted(spans.start_ns, activities.launch_ns, side="right") - 1
    return np.asarray((at >= 0) & (activities.launch_ns < spans.end_ns[at]))
