"""The lanes of time below the memory as a page draws them: stretches in ns on the axis of the rank's timeline."""

from __future__ import annotations

from memtrace.analysis.results.report import RankReport
from memtrace.analysis.results.time import TimeLane, TimeTracks
from memtrace.report.drawing.palette import TIMES
from memtrace.report.page.data.values import Arrays, View
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
    extent = extent_ns(rank)
    if tracks is None or not tracks.lanes or extent is None:
        return None
    origin, _ = extent
    known = [lane for lane in tracks.lanes if lane.name in _ROWS]
    rows = lane_rows(tracks)
    return {
        "rows": rows,
        "lanes": [_lane(lane, rows, origin, arrays) for lane in known],
    }


def lane_rows(tracks: TimeTracks | None) -> list[str]:
    """Return the rows that lanes are drawn in, from the top."""
    names = set() if tracks is None else {lane.name for lane in tracks.lanes}
    return list(dict.fromkeys(row for name, (row, _) in _ROWS.items() if name in names))


def extent_ns(rank: RankReport) -> tuple[int, int] | None:
    """Return the first and the last moment of a rank's axis: of its memory, else of its lanes; `None` without both."""
    timeline, tracks = rank.timeline, rank.time_tracks
    if timeline is not None and len(timeline.time_ns):
        return int(timeline.time_ns[0]), int(timeline.time_ns[-1])
    if tracks is None or not tracks.lanes:
        return None
    starts = [step.start_ns for step in rank.steps if step.recorded and step.start_ns is not None]
    first = min(tracks.start_ns, *(int(lane.start_ns[0]) for lane in tracks.lanes), *starts)
    return first, max(first + 1, *(int(lane.end_ns[-1]) for lane in tracks.lanes))


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
