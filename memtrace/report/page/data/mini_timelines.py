"""Small timelines of many ranks on one axis: for each rank, at most a hundred levels, clocks aligned by a step.

In: reports of ranks. Out: `MiniTimelines`. The clocks of hosts differ, so that each rank counts from the start of the
first step that all of them recorded. A level is the highest of the stretch that it stands for: no peak is lost.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from memtrace.analysis.results.report import RankReport, Timeline

NUM_COLUMNS = 100
"""Levels of one small timeline: 512 ranks together take about half a megabyte of a page."""
_NAN = float("nan")


@dataclass(frozen=True, slots=True, kw_only=True)
class MiniTimelines:
    """The small timelines of some ranks."""

    columns: tuple[list[float] | None, ...]
    """For each rank `NUM_COLUMNS` levels in bytes, NaN where nothing is known; `None` without a history."""
    span_ns: int | None
    """What the axis spans; `None` where no rank has a history."""
    mark: float | None
    """Where on the axis, from 0 to 1, the step begins by which clocks are aligned; `None` where they are not."""
    aligned: str
    """What the ranks are aligned by, as a sentence."""
    top_bytes: int
    """The highest level of all."""

    @classmethod
    def of_ranks(cls, ranks: Sequence[RankReport]) -> MiniTimelines:
        """Return the small timelines of ranks, in the same order."""
        known = [rank for rank in ranks if rank.timeline is not None and len(rank.timeline.event)]
        step = _common_step(known)
        stretches = [_stretch(rank, step) for rank in known]
        if not stretches:
            return cls(columns=(None,) * len(ranks), span_ns=None, mark=None, aligned="", top_bytes=0)
        first, last = min(one for one, _ in stretches), max(one for _, one in stretches)
        # Whole ns for each column, so that edges are the same numbers on all ranks.
        width = max(-(-(last - first + 1) // NUM_COLUMNS), 1)
        levels = {id(rank): _levels(rank, _zero_ns(rank, step) + first, width) for rank in known}
        top = max(int(_line(rank.timeline).max()) for rank in known if rank.timeline is not None)
        return cls(
            columns=tuple(levels.get(id(rank)) for rank in ranks),
            span_ns=last - first,
            mark=None if step is None else -first / (width * NUM_COLUMNS),
            aligned=_aligned(step),
            top_bytes=top,
        )


def _aligned(step: int | None) -> str:
    if step is None:
        return "No step was recorded by all of them: each begins with its own first event."
    return f"Clocks are aligned at the start of step {step}, the first that all of them recorded."


def _common_step(ranks: Sequence[RankReport]) -> int | None:
    """Return the first step after the beginning that all ranks recorded; `None` where there is none."""
    sets = [
        {step.step for step in rank.steps if step.recorded and step.start_ns is not None and step.step > 0}
        for rank in ranks
    ]
    common = set.intersection(*sets) if sets else set()
    return min(common) if common else None


def _zero_ns(rank: RankReport, step: int | None) -> int:
    """Return the moment from which a rank counts."""
    for one in rank.steps:
        if one.step == step and one.start_ns is not None:
            return one.start_ns
    assert rank.timeline is not None
    return int(rank.timeline.time_ns[0])


def _stretch(rank: RankReport, step: int | None) -> tuple[int, int]:
    assert rank.timeline is not None
    zero = _zero_ns(rank, step)
    return int(rank.timeline.time_ns[0]) - zero, int(rank.timeline.time_ns[-1]) - zero


def _line(timeline: Timeline) -> Any:
    return timeline.requested_bytes if timeline.allocated_bytes is None else timeline.allocated_bytes


def _levels(rank: RankReport, start_ns: int, width: int) -> list[float]:
    timeline = rank.timeline
    assert timeline is not None
    edges = [start_ns + width * column for column in range(NUM_COLUMNS + 1)]
    line, times = _line(timeline), timeline.time_ns
    stops = times.searchsorted(edges).tolist()
    # What held before a column's first event holds in it too, unless that event is at its very start.
    before = (times.searchsorted(edges, side="right") - 1).tolist()
    firsts = [min(pair) for pair in zip(before, stops, strict=True)]
    levels = [
        _NAN
        if stops[column + 1] == 0 or edges[column] > times[-1]
        else float(line[max(firsts[column], 0) : max(stops[column + 1], firsts[column] + 1)].max())
        for column in range(NUM_COLUMNS)
    ]
    for gap_start, gap_end in timeline.gaps:
        for column in range(NUM_COLUMNS):
            if gap_start <= edges[column] and edges[column + 1] <= gap_end:
                levels[column] = _NAN
    return levels
