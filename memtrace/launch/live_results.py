"""What there is to see of a running recording: frozen dataclasses of plain ints. Bytes are ints, times ns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum


class RankState(str, Enum):
    """How a recorded process is doing, as far as its files and its host tell."""

    STARTING = "starting"
    """No training step has begun."""
    RUNNING = "running"
    SILENT = "silent"
    """It runs on another host, and has written nothing for a while: it may hang, or be dead."""
    GONE = "gone"
    """Its process is no more, and it did not end its recording: it was killed, or it crashed."""
    ENDED = "ended"


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveWarning:
    """Something that the recording says it does not see, or that went wrong."""

    slug: str
    """Its short name in docs/messages.md."""
    message: str
    """What is not seen, in a sentence."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveRank:
    """One recorded process. Bytes are those of the end of `measured_step`; `None` is not known."""

    rank: int | None
    """Global rank, or `None` outside a distributed run."""
    pid: int | None
    """Process id on its host."""
    state: RankState
    """Whether it trains, hangs, has ended or is gone."""
    age_ns: int | None
    """Time since it last wrote anything."""
    step: int | None
    """Step that runs, 0 before training; once the recording has ended, the last one."""
    phase: str | None
    """Phase that runs."""
    phase_ns: int | None
    """Time that the phase has run."""
    step_ns: int | None
    """Mean time of the last few steps."""
    measured_step: int | None
    """Step at whose end the bytes were read."""
    device: str | None
    """The device that they are of."""
    capacity_bytes: int | None
    """Total memory of the device."""
    allocated_bytes: int | None
    """Allocated then."""
    peak_allocated_bytes: int | None
    """The most that was allocated so far; on the CPU, as far as events were recorded."""
    reserved_bytes: int | None
    """Reserved then; `None` on the CPU."""
    num_alloc_retries: int | None
    """Times that the allocator ran out of memory, emptied its cache and tried again."""
    host_rss_bytes: int | None
    """Resident host memory of the process."""
    categories_step: int | None
    """Step at whose end `by_category` was read."""
    by_category: Mapping[str, int]
    """Bytes that owners held then; empty where none was recorded yet."""
    warnings: tuple[LiveWarning, ...]
    """What the recording does not see."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveRun:
    """A recording as it is now."""

    title: str
    """What was asked for."""
    ranks: tuple[LiveRank, ...]
    """By rank."""
    num_others: int
    """Further processes that were recorded and do not train, such as a launcher of ranks."""
    is_over: bool
    """Whether nothing more will come: every process has ended or is gone, and no launcher runs."""
