"""Stretches of the CPU in which the GPU may starve: waiting for the data loader, taking memory from the device.

In: the activities of a rank. Out: `Intervals`, `None` where the profile could not have seen any.
"""

from __future__ import annotations

import numpy as np

from memtrace.analysis.time.gpu_activities import is_call, rows_where
from memtrace.analysis.time.intervals import Intervals
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
_PROFILER_RAN = "Trace"
"""Kind of the activity by which a profile says from when to when it was taken."""
_FREES = frozenset({"cudaFree", "hipFree", "cuMemUnmap", "hipMemUnmap"})


def data_loading(rank: RankTrace) -> Intervals | None:
    """Return when the program waited for the next batch of torch's data loader."""
    rows = rows_where(rank, "name", lambda name: name.startswith(_DATA_LOADER))
    rows &= ~rows_where(rank, "kind", "gpu_user_annotation".__eq__)
    # A recording keeps the ranges that the program names beside the profile, and not in it.
    named = rank.table("annotations")
    ended = ~named.is_null("start_ns") & ~named.is_null("end_ns")
    ended &= np.array([(rank.text(name) or "").startswith(_DATA_LOADER) for name in named["name"].tolist()], np.bool_)
    if not rows.any() and not ended.any():
        return None
    return _stretches(rank, rows) | Intervals.united(named["start_ns"][ended], named["end_ns"][ended])


def not_profiled(rank: RankTrace, start_ns: int, end_ns: int) -> Intervals:
    """Return when, in a stretch of a recording, the profiler did not run: it profiles chosen steps only."""
    seen = _stretches(rank, rows_where(rank, "kind", _PROFILER_RAN.__eq__))
    if not len(seen.start_ns):
        return Intervals.none()
    return Intervals.united(np.append(start_ns, seen.end_ns), np.append(seen.start_ns, end_ns))


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
