"""When the all-reduces of a backward pass are launched, from its start: of a profile, on a GPU or on the CPU.

In: a rank and from when to when its backward passes ran on the CPU. Out: means over those that launched one all-reduce
a bucket, in the order of buckets; `None` where none did, or nothing was profiled.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from memtrace.analysis.time.gpu_activities import is_call, is_collective_name, rows_where
from memtrace.analysis.time.overlap import collective_kind
from memtrace.store.columns import NULL, IntArray
from memtrace.store.trace import RankTrace

_KERNEL = frozenset({"kernel", "Kernel"})
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
    table = rank.table("kernels")
    kernels = rows_where(rank, "name", _is_all_reduce) & rows_where(rank, "kind", _KERNEL.__contains__)
    kernels &= table["correlation"] != NULL
    if not kernels.any():
        return np.sort(table["start_ns"][rows_where(rank, "name", _OPERATOR.__eq__)])
    # Of all calls, those that launched one of these few: to pair every kernel with its launch would take long.
    calls = np.flatnonzero(is_call(rank) & np.isin(table["correlation"], table["correlation"][kernels]))
    _, group = np.unique(table["correlation"][calls], return_inverse=True)
    launches = np.full(int(group.max(initial=-1)) + 1, np.iinfo(np.int64).max)
    np.minimum.at(launches, group, table["start_ns"][calls])
    return np.sort(launches)


def _is_all_reduce(name: str) -> bool:
    return is_collective_name(name) and collective_kind(name).lower() == "allreduce"
