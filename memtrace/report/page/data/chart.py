"""What stands around the memory of a rank on timeline and map: steps and phases, gaps, capacity, out-of-memory, peak.

In: `RankReport`. Out: a view with times in ns since the first moment of the rank, and texts. Both pictures are drawn
from this one view, so that they cannot differ.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from memtrace.analysis.results.report import RankReport
from memtrace.report.drawing.palette import phase_ink
from memtrace.report.page.data.values import View, step_name
from memtrace.units import format_bytes, format_ns

_CAPACITY_SHOWN_FROM = 0.5
"""A capacity far above the curves would press them flat: it is drawn when they reach this share of it."""
_OPENS_WHOLE_FROM = 0.9

Stretch = tuple[int, int]
"""Start and end, ns."""


def chart_view(rank: RankReport, origin: int, last: int) -> View:
    """Return what is drawn around the memory; `origin` and `last` are the Unix times of the first and last moment."""
    gaps = () if rank.timeline is None else rank.timeline.gaps
    top = _top_bytes(rank)
    shows_capacity = rank.capacity_bytes is not None and top >= _CAPACITY_SHOWN_FROM * rank.capacity_bytes
    return {
        "lanes": [list(one) for one in _lanes(rank, origin, last, gaps)],
        "gaps": [[start - origin, end - origin, _gap_text(rank, start, end)] for start, end in gaps],
        "extent": _extent(rank, origin, last),
        "opens": _opens(rank, origin, last),
        "capacity": None
        if rank.capacity_bytes is None or not shows_capacity
        else {"bytes": rank.capacity_bytes, "text": f"capacity {format_bytes(rank.capacity_bytes)}"},
        "top": max(top, rank.capacity_bytes or 0) if shows_capacity else top,
        "oom": _oom(rank, origin),
        "peak": _peak(rank),
        "device": _device_used(rank, origin),
    }


def _extent(rank: RankReport, origin: int, last: int) -> list[int]:
    """Return the ends of the axis by wall clock: memory, and the lanes of time where they reach farther."""
    lanes = () if rank.time_tracks is None else rank.time_tracks.lanes
    starts, ends = [int(lane.start_ns[0]) for lane in lanes], [int(lane.end_ns[-1]) for lane in lanes]
    return [min(origin, *starts, origin) - origin, max(last, *ends, last) - origin]


def _top_bytes(rank: RankReport) -> int:
    """Return the largest value of any of the curves."""
    used = [step.end.device_used_bytes or 0 for step in rank.steps if step.end is not None]
    timeline = rank.timeline
    if timeline is None or not len(timeline.event):
        return max(used, default=0)
    lines = (timeline.requested_bytes, timeline.allocated_bytes, timeline.reserved_bytes)
    return max(*(int(line.max()) for line in lines if line is not None), *used, 1)


def _lanes(
    rank: RankReport, origin: int, last: int, gaps: Sequence[Stretch]
) -> Iterator[tuple[int, int, str, str, str, bool, str]]:
    """Yield start, end, lane, text, colour, hatching and short text of each step and phase; none reaches into a gap.

    Sorted by start, so that a phase inside another one is drawn over it.
    """
    for step in rank.steps:
        if not step.recorded:
            continue
        if step.start_ns is not None:
            short = "" if step.step == 0 else str(step.step)
            for start, end in _outside((step.start_ns, step.end_ns or last), gaps):
                yield start - origin, end - origin, "step", step_name(step.step), "", False, short
        for phase in sorted(step.phases, key=lambda phase: phase.start_ns):
            ink = phase_ink(phase.phase)
            for start, end in _outside((phase.start_ns, phase.end_ns or last), gaps):
                yield start - origin, end - origin, "phase", ink.label, ink.color, ink.hatched, ""


def _outside(stretch: Stretch, gaps: Sequence[Stretch]) -> Iterator[Stretch]:
    """Yield the parts of a stretch that lie in no gap.

    >>> list(_outside((0, 10), [(2, 3), (8, 20)]))
    [(0, 2), (3, 8)]
    """
    start, end = stretch
    for gap_start, gap_end in gaps:
        if gap_end <= start or gap_start >= end:
            continue
        if gap_start > start:
            yield start, gap_start
        start = gap_end
    if end > start or stretch[0] == stretch[1]:
        yield start, end


def _gap_text(rank: RankReport, start_ns: int, end_ns: int) -> str:
    """Return what a gap is: how long nothing was recorded, and which steps that was."""
    length = f"{format_ns(end_ns - start_ns)} not recorded"
    missing = [
        step.step
        for step in rank.steps
        if not step.recorded and step.start_ns is not None and start_ns <= step.start_ns < end_ns
    ]
    if not missing:
        return length
    first, last = missing[0], missing[-1]
    return f"step {first} · {length}" if first == last else f"steps {first} – {last} · {length}"


def _opens(rank: RankReport, origin: int, last: int) -> list[int] | None:
    """Return the stretch that is shown first: the steps, with the peak and an out-of-memory; `None` for all of it."""
    steps = [step for step in rank.steps if step.recorded and step.step > 0 and step.start_ns is not None]
    starts = [step.start_ns for step in steps if step.start_ns is not None]
    if not starts or last <= origin:
        return None
    also = [rank.peak.time_ns, None if rank.oom is None else rank.oom.time_ns]
    known = [time for time in also if time is not None]
    start = min(*starts, *known) if known else min(starts)
    end = max(*(step.end_ns or last for step in steps), *known, start + 1)
    if end - start >= _OPENS_WHOLE_FROM * (last - origin):
        return None
    return [max(start - origin, 0), min(end, last) - origin]


def _oom(rank: RankReport, origin: int) -> View | None:
    """Return where memory ran out."""
    oom = rank.oom
    if oom is None or oom.time_ns is None:
        return None
    asked = "" if oom.request_bytes is None else f" for {format_bytes(oom.request_bytes)}"
    return {"at": oom.time_ns - origin, "text": f"out of memory{asked}"}


def _peak(rank: RankReport) -> View | None:
    """Return where the peak is and what stands beside it: how much, in which step and phase."""
    peak, timeline = rank.peak, rank.timeline
    is_allocated = timeline is not None and timeline.allocated_bytes is not None
    height = peak.allocated_bytes if is_allocated else peak.requested_bytes
    if peak.event is None or height is None:
        return None
    words = [f"peak {format_bytes(height)}"]
    words += [] if peak.step is None else [step_name(peak.step)]
    words += [] if peak.phase is None else [peak.phase]
    return {"event": peak.event, "bytes": height, "text": " · ".join(words)}


def _device_used(rank: RankReport, origin: int) -> list[list[int]]:
    """Return what the driver reported as used at the end of each step: nobody asked what it was meanwhile."""
    ends = [(step.end_ns, step.end.device_used_bytes) for step in rank.steps if step.end is not None]
    return [[time - origin, used] for time, used in ends if time is not None and used is not None]
