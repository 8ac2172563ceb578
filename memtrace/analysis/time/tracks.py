"""When the GPU computes, communicates, copies or starves: stretches of time for drawing beside the memory.

In: a rank. Out: `TimeTracks`. A lane holds a limited number of stretches: where there are more, the shortest gaps are
closed, which the lane tells, so that what is drawn is never taken for the figures of `overlap.py`.
"""

from __future__ import annotations

from collections.abc import Iterator

from memtrace.analysis.results.time import TimeLane, TimeTracks
from memtrace.analysis.time.gpu_activities import COMMUNICATION, COMPUTE, COPY, GpuActivities
from memtrace.analysis.time.intervals import Intervals
from memtrace.analysis.time.stalls import allocator_calls, data_loading, not_profiled
from memtrace.schema.names import Source
from memtrace.store.trace import RankTrace

MAX_STRETCHES = 2000
"""Stretches of a lane: more than a screen has pixels across."""


def time_tracks(rank: RankTrace, *, max_stretches: int = MAX_STRETCHES) -> TimeTracks | None:
    """Return when a rank's GPU did what; `None` where no activity of a GPU was recorded."""
    activities = GpuActivities.of_rank(rank)
    if not len(activities):
        return None
    lanes = (_lane(name, stretches, max_stretches) for name, stretches in _stretches(rank, activities))
    return TimeTracks(
        start_ns=int(activities.start_ns[0]),
        end_ns=int(activities.end_ns.max()),
        lanes=tuple(lane for lane in lanes if lane.num_stretches),
    )


def _stretches(rank: RankTrace, activities: GpuActivities) -> Iterator[tuple[str, Intervals]]:
    compute, communication, copies = (
        activities.united(activities.sort == one) for one in (COMPUTE, COMMUNICATION, COPY)
    )
    yield "compute", compute
    yield "communication", communication
    yield "exposed", communication - compute
    yield "copy", copies
    yield "idle", _idle(rank, compute | communication | copies)
    for name, waits in (("data", data_loading(rank)), ("allocator", allocator_calls(rank))):
        if waits is not None:
            yield name, waits


def _idle(rank: RankTrace, busy: Intervals) -> Intervals:
    """Return when nothing ran on the GPU between its activities, without what the profiler did not see."""
    idle = Intervals.united(busy.end_ns[:-1], busy.start_ns[1:])
    if rank.source == Source.KINETO.value or not len(idle.start_ns):
        return idle
    return idle - not_profiled(rank, int(idle.start_ns[0]), int(idle.end_ns[-1]))


def _lane(name: str, stretches: Intervals, max_stretches: int) -> TimeLane:
    drawn = stretches.merged(max_stretches)
    gaps = stretches.start_ns[1:] - stretches.end_ns[:-1]
    # What is drawn keeps the longest gaps: the longest closed one is the one before them.
    num_closed = len(stretches.start_ns) - len(drawn.start_ns)
    return TimeLane(
        name=name,
        start_ns=drawn.start_ns,
        end_ns=drawn.end_ns,
        total_ns=stretches.length_ns,
        num_stretches=len(stretches.start_ns),
        max_closed_ns=int(gaps[gaps.argpartition(num_closed - 1)[num_closed - 1]]) if num_closed else 0,
    )
