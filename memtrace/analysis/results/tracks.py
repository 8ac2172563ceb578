"""What a run is on a time line for other tools: counters and slices, in full. Times are Unix ns, values bytes."""

from __future__ import annotations

from dataclasses import dataclass

from memtrace.analysis.results.report import IntArray


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Counter:
    """A level: each value holds from its time until the next one."""

    name: str
    """As "cuda:0 activation" or "cuda:0 reserved"."""
    time_ns: IntArray
    """When each value begins, ascending."""
    num_bytes: IntArray
    """The value from then on."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Lane:
    """Slices that follow one another or nest."""

    name: str
    """steps, phases, modules, a thread or a stream."""
    start_ns: IntArray
    """When each slice begins."""
    end_ns: IntArray
    """When each slice ends."""
    name_of: IntArray
    """Index into `names`."""
    names: tuple[str, ...]
    """What each slice is called."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RankTracks:
    """Everything of one rank that has a time."""

    rank: int | None
    """Its number; `None` where the file holds no rank."""
    counters: tuple[Counter, ...]
    """Levels."""
    lanes: tuple[Lane, ...]
    """Slices."""
