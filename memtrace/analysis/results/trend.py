"""What several runs in a row say: a row of figures for each. Frozen dataclasses; bytes are ints, unknown is `None`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from memtrace.analysis.results.diff import StepCurve


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TrendRun:
    """One run: the figures of the rank and device that peaks highest in it."""

    title: str
    """What was read."""
    start_ns: int | None
    """Unix time at which it was recorded; `None` where not known."""
    rank: int | None
    """Rank of the figures; `None` where the file holds no rank."""
    device: str | None
    """Device of the figures; `None` where no memory was recorded."""
    peak_bytes: int | None
    """The peak: allocated bytes where all runs know them, else requested."""
    steady_bytes: int | None
    """The same of the steps after the first, where they were recorded."""
    reserved_bytes: int | None
    """The most that was reserved; `None` where not known."""
    leak_bytes: int
    """What piles up a step; 0 where no leak was found."""
    by_category: Mapping[str, int]
    """Requested bytes at the peak."""
    change_bytes: int | None
    """The peak less that of the run before; `None` for the first, and where one is not known."""
    outcome: str
    """died, would-die, ended or unknown, as on the card of the run."""
    death: str | None
    """How it died, in a sentence."""
    curve: StepCurve | None = None
    """Its memory over its steps; `None` without steps or a history."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Trend:
    """Runs in a row, the oldest first."""

    title: str
    """What was read."""
    verdict: str
    """How the peak went, in a sentence."""
    compares: str
    """What peaks are bytes of: allocated, or requested where a run does not know that."""
    runs: tuple[TrendRun, ...]
    """In the order of time, of files without one by name."""
    unread: tuple[str, ...]
    """Files that could not be read, and why, a sentence each."""
