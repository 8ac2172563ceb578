"""When the GPU computes, communicates, copies or starves: stretches of time for drawing beside the memory.

In: a rank. Out: `TimeTracks`. A lane holds a limited number of stretches: where there are more, the shortest gaps are
closed, which the lane tells, so that what is drawn is never taken for the figures of `overlap.py`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from memtrace.analysis.gpu_activities import COMMUNICATION, COMPUTE, COPY, GpuActivities
from memtrace.analysis.intervals import Intervals
from memtrace.analysis.stalls import allocator_calls, data_loading
from memtrace.store.columns import IntArray
from memtrace.store.trace import RankTrace

MAX_STRETCHES = 2000
"""Stretches of a lane: more than a screen has pixels across."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TimeLane:
    """When one thing happened: stretches of time that do not overlap, in order."""

    name: str
    """compute, communication (all of it), exposed (communication while nothing is computed), copy; and of the CPU: data
    (waiting for the data loader), allocator (taking memory from the device or giving it back)."""
    start_ns: IntArray
    """Unix time; of a profile without one, the time since its own zero."""
    end_ns: IntArray
    total_ns: int
    """How long it happened; not more than the stretches are long together."""
    num_stretches: int
    """Stretches that there were before the shortest gaps were closed."""
    max_closed_ns: int
    """The longest gap that was closed for drawing; 0 where every stretch is as it was."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TimeTracks:
    """The lanes of one rank; those in which nothing happened are left out."""

    start_ns: int
    """Start of the first activity on the GPU."""
    end_ns: int
    """End of the last."""
    lanes: tuple[TimeLane, ...]


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
    for name, waits in (("data", data_loading(rank)), ("allocator", allocator_calls(rank))):
        if waits is not None:
            yield name, waits


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
