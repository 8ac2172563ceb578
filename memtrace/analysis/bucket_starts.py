"""When the all-reduces of a backward pass are launched, from its start: of a profile, on a GPU or on the CPU.

In: a rank and from when to when its backward passes ran on the CPU. Out: means over those that launched one all-reduce
a bucket, in the order of buckets; `None` where none did, or nothing was profiled.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from memtrace.analysis.gpu_activities import COMMUNICATION, GpuActivities, rows_where
from memtrace.analysis.overlap import collective_kind
from memtrace.store.columns import NULL, IntArray
from memtrace.store.trace import RankTrace

_OPERATOR = "c10d::allreduce_"
"""How torch launches an all-reduce, on whatever it then runs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BucketStarts:
    """Means over backward passes."""

    offsets_ns: tuple[int, ...]
    """For each bucket, the time from the start of the backward to the launch of its all-reduce."""
    backward_ns: int
    """Length of the backward on the CPU."""


def bucket_starts(rank: RankTrace, backwards: Sequence[tuple[int, int]], num_buckets: int) -> BucketStarts | None:
    """Return when the buckets of some backward passes were reduced."""
    launches = _launches(rank)
    if not len(launches) or not num_buckets:
        return None
    offsets, lengths = [], []
    for start_ns, end_ns in backwards:
        first, last = np.searchsorted(launches, [start_ns, end_ns])
        if last - first == num_buckets:
            offsets.append(launches[first:last] - start_ns)
            lengths.append(end_ns - start_ns)
    if not offsets:
        return None
    means = np.sum(offsets, axis=0) // len(offsets)
    return BucketStarts(offsets_ns=tuple(means.tolist()), backward_ns=sum(lengths) // len(lengths))


def _launches(rank: RankTrace) -> IntArray:
    """Return when all-reduces were launched, in order: by their kernels, or on the CPU by their operators."""
    activities = GpuActivities.of_rank(rank)
    kernels = activities.launch_ns[(activities.sort == COMMUNICATION) & (activities.launch_ns != NULL)]
    if len(kernels):
        names = activities.name[(activities.sort == COMMUNICATION) & (activities.launch_ns != NULL)]
        is_reduce = {name: collective_kind(rank.strings[name]).lower() == "allreduce" for name in set(names.tolist())}
        return np.sort(kernels[[is_reduce[name] for name in names.tolist()]])
    operators = rows_where(rank, "name", _OPERATOR.__eq__)
    return np.sort(rank.table("kernels")["start_ns"][operators])
