"""The horizontal axis of a timeline, and the arrays that lie along it."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from memtrace.report.page.figures.plotly import Reference


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """The arrays of one timeline: Python lists to place things by, and references to draw by."""

    times_ns: Sequence[int]
    """Unix times, ascending."""
    events: Sequence[int]
    """Rows of the events table, one a time."""
    seconds_ref: Reference
    events_ref: Reference
    category_refs: Mapping[str, Reference]
    """In the order of the stack."""
    allocated_ref: Reference | None
    is_rounded: bool
    """Whether allocated bytes differ from requested ones anywhere, so that a line of their own says something."""
    reserved_ref: Reference | None
    top_bytes: int
    """Largest value of any of the curves."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Axis:
    """The horizontal axis of a timeline: wall clock in seconds, or events."""

    series: Series
    by_event: bool

    @property
    def reference(self) -> Reference:
        """The array of horizontal positions."""
        return self.series.events_ref if self.by_event else self.series.seconds_ref

    @property
    def title(self) -> str:
        """What the axis counts."""
        return "allocator events" if self.by_event else "seconds since the first event"

    def place(self, time_ns: int) -> float:
        """Return the position of a moment; on the event axis, that of the first drawn event not before it."""
        times = self.series.times_ns
        if not self.by_event:
            return (time_ns - times[0]) / 1e9
        return self.series.events[min(bisect_left(times, time_ns), len(times) - 1)]
