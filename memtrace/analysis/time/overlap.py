"""Where the GPU's time goes: compute, communication, copies, nothing; and how much communication compute hides.

In: the activities and steps of a rank. Out: `TimeResult`. A step's window is its stretch on the CPU; its work is what
was launched in that window, wherever it then ran, found by the correlation of launch and kernel. What it runs outside
the window, and what others run inside, is told apart, so that nothing is lost and idle means that the GPU did nothing.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from memtrace.analysis.results.time import CollectiveTime, TimeResult, TimeSplit
from memtrace.analysis.time.gpu_activities import COMMUNICATION, COMPUTE, COPY, GpuActivities
from memtrace.analysis.time.intervals import Intervals
from memtrace.analysis.time.stalls import allocator_calls, data_loading, not_profiled
from memtrace.schema.names import Source
from memtrace.store.columns import NULL, IntArray
from memtrace.store.trace import RankTrace

_Window = tuple[int, int]
_KINDS = re.compile("AllReduce|ReduceScatter|AllGather|AllToAll|Broadcast|SendRecv|Reduce|Generic", re.IGNORECASE)


@dataclass(frozen=True, slots=True, eq=False)
class _Waits:
    """When the CPU waits for something, and how much of that the GPU notices."""

    waits: Intervals
    waits_or_occupied: Intervals
    """United once, and not for every window."""

    @classmethod
    def beside(cls, occupied: Intervals, waits: Intervals | None) -> _Waits | None:
        """Return the waits beside all that the GPU does, or may do unseen; `None` for none."""
        return None if waits is None else cls(waits, waits | occupied)

    def within(self, window: _Window, occupied_ns: int) -> tuple[int, int]:
        """Return the time of a window in which the CPU waits, and the part of it in which the GPU does nothing."""
        return self.waits.within(*window), self.waits_or_occupied.within(*window) - occupied_ns


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Background:
    """What windows are held against: all work, and stretches of the CPU in which the GPU may starve."""

    busy: Intervals
    occupied: Intervals
    """When the GPU is busy, or nobody looked."""
    data: _Waits | None
    allocator: _Waits | None


def time_of_rank(rank: RankTrace) -> TimeResult | None:
    """Return where the time of a rank goes; `None` where no activity of a GPU was recorded."""
    activities = GpuActivities.of_rank(rank)
    if not len(activities):
        return None
    everything = np.arange(len(activities))
    window = int(activities.start_ns[0]), int(activities.end_ns.max())
    windows, unfinished = _windows(rank)
    background = _background(rank, activities, [window, *((start_ns, end_ns) for _, start_ns, end_ns in windows)])
    by_launch = np.argsort(activities.launch_ns)
    launches = activities.launch_ns[by_launch]
    steps, in_steps = [], np.zeros(len(activities), np.bool_)
    for step, start_ns, end_ns in windows:
        first, last = np.searchsorted(launches, [start_ns, end_ns])
        rows = np.sort(by_launch[first:last])
        in_steps[rows] = True
        steps.append(_split(activities, rows, step, (start_ns, end_ns), background))
    is_unlinked = activities.launch_ns == NULL
    return TimeResult(
        whole=_split(activities, everything, None, window, background),
        steps=tuple(steps),
        window="ProfilerStep" if rank.source == Source.KINETO.value else "optimizer step",
        unfinished_steps=unfinished,
        num_unlinked=int(np.count_nonzero(is_unlinked)),
        num_outside_steps=int(np.count_nonzero(~is_unlinked & ~in_steps)) if steps else 0,
        num_devices=activities.num_devices,
        collectives=_collectives(rank, activities),
    )


def _background(rank: RankTrace, activities: GpuActivities, windows: Sequence[_Window]) -> _Background:
    """Return what some windows are held against."""
    busy = occupied = activities.united(np.arange(len(activities)))
    if rank.source != Source.KINETO.value:
        occupied = busy | not_profiled(rank, min(start for start, _ in windows), max(end for _, end in windows))
    return _Background(
        busy=busy,
        occupied=occupied,
        data=_Waits.beside(occupied, data_loading(rank)),
        allocator=_Waits.beside(occupied, allocator_calls(rank)),
    )


def _windows(rank: RankTrace) -> tuple[list[tuple[int, int, int]], tuple[int, ...]]:
    """Return number, start and end of each profiled step, and the numbers of those that have no end."""
    table = rank.table("steps")
    is_kineto = rank.source == Source.KINETO.value
    kept = np.ones(len(table), np.bool_)
    if not is_kineto:
        # Of a recording, step 0 is what came before training, and only some of the steps may have been profiled.
        starts = np.sort(rank.table("kernels")["start_ns"])
        first, last = (np.searchsorted(starts, table[name]) for name in ("start_ns", "end_ns"))
        kept = (table["step"] != 0) & ((last > first) | table.is_null("end_ns"))
    rows = zip(*(table[name][kept].tolist() for name in ("step", "start_ns", "end_ns")), strict=True)
    windows, unfinished = [], []
    for step, start_ns, end_ns in rows:
        if end_ns == NULL:
            unfinished.append(step)
        else:
            windows.append((step, start_ns, max(start_ns, end_ns)))
    return windows, tuple(unfinished)


def _split(
    activities: GpuActivities,
    rows: IntArray,
    step: int | None,
    window: _Window,
    behind: _Background,
) -> TimeSplit:
    """Return where the time of a window goes whose work is in some rows."""
    start_ns, end_ns = window
    sort = activities.sort[rows]
    compute, communication, copies = (activities.united(rows[sort == one]) for one in (COMPUTE, COMMUNICATION, COPY))
    kernels = compute | communication
    own = kernels | copies
    own_inside_ns, busy_ns = own.within(start_ns, end_ns), behind.busy.within(start_ns, end_ns)
    occupied_ns = behind.occupied.within(start_ns, end_ns)
    exposed_ns = kernels.length_ns - compute.length_ns
    data, allocator = (
        (None, None) if one is None else one.within(window, occupied_ns) for one in (behind.data, behind.allocator)
    )
    return TimeSplit(
        step=step,
        start_ns=start_ns,
        end_ns=end_ns,
        num_activities=len(sort),
        compute_ns=compute.length_ns,
        communication_ns=communication.length_ns,
        hidden_ns=communication.length_ns - exposed_ns,
        exposed_ns=exposed_ns,
        copy_ns=copies.length_ns,
        copy_only_ns=own.length_ns - kernels.length_ns,
        other_ns=busy_ns - own_inside_ns,
        outside_ns=own.length_ns - own_inside_ns,
        unseen_ns=occupied_ns - busy_ns,
        idle_ns=end_ns - start_ns - occupied_ns,
        data_ns=data[0],
        data_stall_ns=data[1],
        allocator_ns=allocator[0],
        allocator_stall_ns=allocator[1],
    )


def _collectives(rank: RankTrace, activities: GpuActivities) -> tuple[CollectiveTime, ...]:
    """Return the communication by kind."""
    is_communication = activities.sort == COMMUNICATION
    if not is_communication.any():
        return ()
    compute = activities.united(activities.sort == COMPUTE)
    names: dict[str, list[int]] = {}
    for name in np.unique(activities.name[is_communication]).tolist():
        names.setdefault(collective_kind(rank.strings[name]), []).append(name)
    found = []
    for kind, ids in names.items():
        rows = is_communication & np.isin(activities.name, ids)
        of_kind = activities.united(rows)
        exposed_ns = (compute | of_kind).length_ns - compute.length_ns
        num_kernels = int(np.count_nonzero(rows))
        found.append(
            CollectiveTime(name=kind, num_kernels=num_kernels, time_ns=of_kind.length_ns, exposed_ns=exposed_ns)
        )
    return tuple(sorted(found, key=lambda one: (-one.time_ns, one.name)))


def collective_kind(name: str) -> str:
    """Return which communication a kernel does, by its name.

    >>> collective_kind("ncclKernel_SendRecv_RING_SIMPLE_Sum_int8_t(ncclDevComm*)"), collective_kind("mscclKernel_x")
    ('SendRecv', 'Generic')
    """
    found = _KINDS.search(name.partition("(")[0])
    return found[0] if found else "Generic"
