"""What `memtrace fit` measures and finds: frozen dataclasses of plain values. Bytes are ints."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What one recorded or predicted run says of its memory, of the rank that needs the most."""

    peak_bytes: int | None
    """Steady-state peak: the largest of the steps after the first. `None` where the run ran out of memory."""
    needed_bytes: int | None
    """What a device must have for it: the peak; on an accelerator what its allocator reserved, and what others hold."""
    first_step_peak_bytes: int | None
    """Largest of the first step; `None` where the run did not get so far."""
    device_bytes: int | None
    """Memory of the device that it ran on; `None` on the CPU."""
    out_of_memory: bool
    """Whether a request of the run failed for want of memory."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FitRun:
    """One run, judged."""

    micro_batch: int
    """The size that was tried."""
    measured: Measured
    """What the run said."""
    fits: bool
    """Whether it needs no more than there is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """The largest micro-batch that fits, and the runs that show it."""

    micro_batch: int | None
    """`None` where not even the smallest fits."""
    steady_state_peak_bytes: int | None
    """Of the run with that micro-batch; `None` where none fits."""
    capacity_bytes: int
    """What there is."""
    runs: tuple[FitRun, ...]
    """In the order in which they were made."""
    notes: tuple[str, ...]
    """What a reader must know to rely on it, in sentences."""
    source: str = "recorded"
    """recorded, or predicted where no run needed the device."""
    engine: str | None = None
    """What predicted it: driverless or meta. `None` where it was recorded."""
