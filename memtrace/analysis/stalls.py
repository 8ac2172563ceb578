"""Stretches of the CPU in which the GPU may starve: waiting for the data loader, taking memory from the device.

In: the activities of a rank. Out: `Intervals`, `None` where the profile could not have seen any.
"""

from __future__ import annotations

import numpy as np

from memtrace.analysis.gpu_activities import is_call, rows_where
from memtrace.analysis.intervals import Intervals
from memtrace.store.columns import BoolArray
from memtrace.store.trace import RankTrace

_DATA_LOADER = "enumerate(DataLoader)"
_ALLOCATOR_CALLS = frozenset(
    {
        *("cudaMalloc", "cudaMallocAsync", "cudaFree", "cudaFreeAsync"),
        *("cuMemCreate", "cuMemRelease", "cuMemMap", "cuMemUnmap", "cuMemSetAccess"),
        *("hipMalloc", "hipMallocAsync", "hipFree", "hipFreeAsync"),
        *("hipMemCreate", "hipMemRelease", "hipMemMap", "hipMemUnmap", "hipMemSetAccess"),
    }
)
"""How torch's allocator takes segments from the device and gives them back; the second row is for expandable ones."""
_FREES = frozenset({"cudaFree", "hipFree", "cuMemUnmap", "hipMemUnmap"})


def data_loading(rank: RankTrace) -> Intervals | None:
    """Return when the program waited for the next batch of torch's data loader."""
    rows = rows_where(rank, "name", lambda name: name.startswith(_DATA_LOADER))
    rows &= ~rows_where(rank, "kind", "gpu_user_annotation".__eq__)
    return _stretches(rank, rows) if rows.any() else None


def allocator_calls(rank: RankTrace) -> Intervals | None:
    """Return when the program was in calls that take memory from the device or give it back."""
    calls = is_call(rank)
    return _stretches(rank, calls & rows_where(rank, "name", _ALLOCATOR_CALLS.__contains__)) if calls.any() else None


def num_device_frees(rank: RankTrace) -> int:
    """Return how many calls gave memory back to the device."""
    return int(np.count_nonzero(is_call(rank) & rows_where(rank, "name", _FREES.__contains__)))


def _stretches(rank: RankTrace, rows: BoolArray) -> Intervals:
    table = rank.table("kernels")
    starts = table["start_ns"][rows]
    return Intervals.united(starts, starts + table["duration_ns"][rows])
