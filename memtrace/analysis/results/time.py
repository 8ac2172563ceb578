"""What analysis says about time: where the GPU's time goes, a step and in all. Integers, ns.

`None` is "not recorded"; never 0 and never -1.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class TimeSplit:
    """Where the time of one window goes. Times of several streams are united: a moment counts once.

    `compute_ns + exposed_ns + copy_only_ns + other_ns + unseen_ns + idle_ns == (end_ns - start_ns) + outside_ns`.
    """

    step: int | None
    """Number of the step; `None` for the whole profile."""
    start_ns: int
    """Start of the window."""
    end_ns: int
    """End of the window, which is not part of it."""
    num_activities: int
    """Kernels, copies and fills launched in the window; of the whole profile all of them."""
    compute_ns: int
    """Time in kernels that are no communication."""
    communication_ns: int
    """Time in kernels of NCCL, RCCL or MSCCL."""
    hidden_ns: int
    """Of the communication, the time in which a compute kernel ran as well."""
    exposed_ns: int
    """The rest of the communication."""
    copy_ns: int
    """Time in copies and fills of memory."""
    copy_only_ns: int
    """Of that, the time in which no kernel ran."""
    other_ns: int
    """Time of the window in which only work ran that was launched outside it; 0 for the whole profile."""
    outside_ns: int
    """Time in which the window's work ran outside it, mostly after its end; 0 for the whole profile."""
    unseen_ns: int
    """Time of the window in which the profiler did not run, and nothing was seen to; 0 but for recordings."""
    idle_ns: int
    """Time of the window in which nothing ran on the GPU."""
    data_ns: int | None
    """Time of the window in which the program waited for its data loader; `None` where no data loader was seen."""
    data_stall_ns: int | None
    """Of that, the time in which nothing ran on the GPU."""
    allocator_ns: int | None
    """Time in calls that take memory from the device or give it back; `None` where calls were not recorded."""
    allocator_stall_ns: int | None
    """Of that, the time in which nothing ran on the GPU."""

    @property
    def window_ns(self) -> int:
        """Length of the window."""
        return self.end_ns - self.start_ns

    @property
    def idle_share(self) -> float | None:
        """Share of the window in which nothing ran on the GPU; `None` of an empty window."""
        return self.idle_ns / self.window_ns if self.window_ns else None

    @property
    def hidden_share(self) -> float | None:
        """Share of the communication that is hidden under compute; `None` without communication."""
        return self.hidden_ns / self.communication_ns if self.communication_ns else None


@dataclass(frozen=True, slots=True, kw_only=True)
class CollectiveTime:
    """The kernels of one kind of communication, over the whole profile."""

    name: str
    """As AllReduce; Generic where one kernel serves several kinds."""
    num_kernels: int
    """Kernels of it."""
    time_ns: int
    """Time in them."""
    exposed_ns: int
    """Of that, the time in which no compute kernel ran."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TimeResult:
    """Where the GPU time of one rank goes."""

    whole: TimeSplit
    """From the start of the first activity on the GPU to the end of the last."""
    steps: tuple[TimeSplit, ...]
    """Every profiled step, the last included, in order. A step's window is its stretch on the CPU."""
    window: str
    """What a step's window is: "ProfilerStep", or "optimizer step" where memtrace recorded the steps."""
    unfinished_steps: tuple[int, ...]
    """Steps that have no end, and so no window."""
    num_unlinked: int
    """Activities whose launch was not recorded: they are in `whole`, and in no step."""
    num_outside_steps: int
    """Activities that were launched outside every step: they are in `whole`, and in no step."""
    num_devices: int
    """Devices that the activities ran on; idle is when none of them runs anything."""
    collectives: tuple[CollectiveTime, ...]
    """Communication by kind, the longest first."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TimeLane:
    """When one thing happened: stretches of time that do not overlap, in order."""

    name: str
    """Of the GPU: compute, communication (all of it), exposed (communication while nothing is computed), copy, idle.
    Of the CPU: data (waiting for the data loader), allocator (taking memory from the device or giving it back)."""
    start_ns: IntArray
    """Unix time; of a profile without one, the time since its own zero."""
    end_ns: IntArray
    """When each stretch ends."""
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
    """In the order in which they are shown."""
