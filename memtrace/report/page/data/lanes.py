"""The lanes of time below the memory as a page draws them: stretches in ns on the axis of the rank's timeline."""

from __future__ import annotations

from memtrace.analysis.results.report import RankReport
from memtrace.analysis.results.time import TimeLane, TimeTracks
from memtrace.report.drawing.palette import TIMES
from memtrace.report.page.data.values import Arrays, View
from memtrace.report.page.figures.time import time_figure
from memtrace.report.page.figures.timeline_axis import Axis, Series
from memtrace.report.page.figures.timeline_lanes import lanes
from memtrace.units import format_ns

# Lanes by name: the row they are drawn in, and as what. What comes later is drawn over what came before.
_ROWS = {
    "compute": ("compute", "compute"),
    "communication": ("communication", "hidden"),
    "exposed": ("communication", "exposed"),
    "copy": ("copies", "copy"),
    "idle": ("idle", "idle"),
    "data": ("data wait", "data"),
    "allocator": ("memory calls", "allocator"),
}


def lanes_view(rank: RankReport, arrays: Arrays) -> View | None:
    """Return the lanes of a rank; `None` where it has none.

    Times are ns since the rank's first event, with which its timeline begins, or else since the first of the lanes.
    """
    tracks = rank.time_tracks
    if tracks is None or not tracks.lanes:
        return None
    origin = origin_ns(rank, tracks)
    known = [lane for lane in tracks.lanes if lane.name in _ROWS]
    rows = lane_rows(tracks)
    found = rank.allocation_map
    last = max(int(lane.end_ns[-1]) for lane in known)
    return {
        "rows": rows,
        "lanes": [_lane(lane, rows, origin, arrays) for lane in known],
        # The map counts from its own first moment.
        "map_shift": None if found is None or found.time_ns is None else (origin - int(found.time_ns[0])) / 1e9,
        # In place of what a timeline says: its figure and its steps.
        "steps": [[one["start"], one["end"], one["text"]] for one in lanes(rank, _axis(origin, last))["step"]],
        "figure": time_figure(rank, _axis(origin, last), rows) if rank.timeline is None else None,
    }


def lane_rows(tracks: TimeTracks | None) -> list[str]:
    """Return the rows that lanes are drawn in, from the top."""
    names = set() if tracks is None else {lane.name for lane in tracks.lanes}
    return list(dict.fromkeys(row for name, (row, _) in _ROWS.items() if name in names))


def origin_ns(rank: RankReport, tracks: TimeTracks) -> int:
    """Return the moment from which the lanes of a rank count."""
    if rank.timeline is not None and len(rank.timeline.time_ns):
        return int(rank.timeline.time_ns[0])
    starts = [step.start_ns for step in rank.steps if step.recorded and step.start_ns is not None]
    return min(tracks.start_ns, *(int(lane.start_ns[0]) for lane in tracks.lanes), *starts)


def _lane(lane: TimeLane, rows: list[str], origin: int, arrays: Arrays) -> View:
    row, name = _ROWS[lane.name]
    ink = TIMES[name]
    drawn, closed = f"{lane.num_stretches:,} stretches", ""
    if lane.max_closed_ns:
        closed = f"; gaps of up to {format_ns(lane.max_closed_ns)} between them are not drawn"
    return {
        "name": name,
        "label": ink.label,
        "color": ink.color,
        "row": rows.index(row),
        "starts": arrays.add((lane.start_ns - origin).tolist()),
        "ends": arrays.add((lane.end_ns - origin).tolist()),
        "total": f"{format_ns(lane.total_ns)} in {drawn}{closed}",
    }


def _axis(origin: int, last: int) -> Axis:
    """Return the axis of a rank without a timeline."""
    series = Series(
        times_ns=(origin, max(last, origin + 1)),
        events=(),
        seconds_ref={},
        events_ref={},
        category_refs={},
        allocated_ref=None,
        is_rounded=False,
        reserved_ref=None,
        top_bytes=0,
    )
    return Axis(series=series, by_event=False)
