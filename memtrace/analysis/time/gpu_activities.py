"""What ran on the GPU: kernels, copies and collectives of a profile, each with the moment at which it was launched.

In: the table `kernels` of a rank, which holds every activity of the profile. Out: `GpuActivities` in the order of their
starts. Only the profiler's own categories count: an operator with a stream among its arguments is none, and neither is
the copy of a named range on the side of the GPU.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from memtrace.analysis.time.intervals import Intervals
from memtrace.store.columns import NULL, BoolArray, IntArray
from memtrace.store.trace import RankTrace

COMPUTE, COMMUNICATION, COPY = 0, 1, 2

_KERNEL = frozenset({"kernel", "Kernel"})
_COPY = frozenset({"gpu_memcpy", "gpu_memset", "Memcpy", "Memset"})
"""Kinds of activities; those in capitals are of profiles of 2021."""
_CALL = re.compile(r"(?:\w+_)?(?:runtime|driver)", re.IGNORECASE)
# The name of the function itself, not of a template's argument; plain or as the compiler mangles it.
_COLLECTIVE = re.compile(r"(?:void )?(?:\w+::)*(?:_Z[A-Z]*\d+)?(?:nccl|rccl|msccl)", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class GpuActivities:
    """Kernels, copies and fills of memory, in the order of their starts."""

    start_ns: IntArray
    end_ns: IntArray
    sort: IntArray
    """COMPUTE, COMMUNICATION or COPY."""
    name: IntArray
    """String id."""
    launch_ns: IntArray
    """Start of the call of the runtime or driver that launched it; null where no call has its correlation."""
    num_devices: int
    """Devices that they ran on; one where the profile does not say."""

    @classmethod
    def of_rank(cls, rank: RankTrace) -> GpuActivities:
        """Return the activities of a rank."""
        table = rank.table("kernels")
        is_kernel = rows_where(rank, "kind", _KERNEL.__contains__)
        rows = np.flatnonzero(is_kernel | rows_where(rank, "kind", _COPY.__contains__))
        rows = rows[np.argsort(table["start_ns"][rows])]
        is_collective = rows_where(rank, "name", is_collective_name)[rows]
        sort = np.where(is_collective, COMMUNICATION, COMPUTE)
        starts = table["start_ns"][rows]
        return cls(
            start_ns=starts,
            # A broken file may hold a negative duration, or one beyond what 64 bits hold.
            end_ns=np.maximum(starts, starts + table["duration_ns"][rows]),
            sort=np.where(is_kernel[rows], sort, COPY),
            name=table["name"][rows],
            launch_ns=_launches(rank, rows),
            num_devices=len(np.unique(table["device"][rows])),
        )

    def __len__(self) -> int:
        return len(self.start_ns)

    def united(self, rows: IntArray | BoolArray) -> Intervals:
        """Return when any of some activities ran, whatever their streams."""
        return Intervals.united(self.start_ns[rows], self.end_ns[rows])


def is_collective_name(name: str) -> bool:
    """Return whether a kernel is one of NCCL, RCCL or MSCCL.

    >>> [is_collective_name(name) for name in ("ncclDevKernel_AllReduce_Sum_f32(x)", "__amd_rocclr_copyBuffer")]
    [True, False]
    """
    return _COLLECTIVE.match(name) is not None


def is_call(rank: RankTrace) -> BoolArray:
    """Return for each activity whether it is a call of the GPU's runtime or driver."""
    return rows_where(rank, "kind", lambda kind: _CALL.fullmatch(kind) is not None)


def rows_where(rank: RankTrace, column: str, holds: Callable[[str], bool]) -> BoolArray:
    """Return for each activity whether a condition holds for one of its texts. Each text is looked at once."""
    ids = rank.table("kernels")[column]
    flags = np.zeros(len(rank.strings), np.bool_)
    known = np.maximum(ids, 0)
    if not len(flags):
        return np.zeros(len(ids), np.bool_)
    flags[known] = True
    for text in np.flatnonzero(flags).tolist():
        flags[text] = holds(rank.strings[text])
    return np.asarray(flags[known] & (ids != NULL))


def _launches(rank: RankTrace, rows: IntArray) -> IntArray:
    """Return when each of some activities was launched, by its correlation with a call."""
    table = rank.table("kernels")
    correlation = table["correlation"]
    calls = np.flatnonzero(is_call(rank) & (correlation != NULL))
    if not len(calls):
        return np.full(len(rows), NULL, np.int64)
    calls = calls[np.argsort(correlation[calls])]
    ids = correlation[calls]
    firsts = np.flatnonzero(np.append(True, ids[1:] != ids[:-1]))
    # A launch may be a call of the runtime and one of the driver in it: the first is the program's.
    launched, ids = np.minimum.reduceat(table["start_ns"][calls], firsts), ids[firsts]
    at = np.minimum(np.searchsorted(ids, correlation[rows]), len(ids) - 1)
    return np.where(ids[at] == correlation[rows], launched[at], NULL)
