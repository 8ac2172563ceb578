"""The timeline of a rank as a page shows it: figures for both axes, and the arrays that figures and pointer read."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from typing import Any

from memtrace.analysis.results.report import RankReport, Timeline
from memtrace.report.drawing.palette import category_ink, stack_order
from memtrace.report.page.data.lanes import lane_rows, origin_ns
from memtrace.report.page.data.values import Arrays, View
from memtrace.report.page.figures.plotly import Figure, Reference
from memtrace.report.page.figures.time import with_time_rows
from memtrace.report.page.figures.timeline import timeline_figure
from memtrace.report.page.figures.timeline_axis import Axis, Series
from memtrace.report.page.figures.timeline_lanes import lanes

_NAN = float("nan")


def timeline_view(rank: RankReport, timeline: Timeline, arrays: Arrays) -> View:
    """Return the two figures of a timeline (wall clock, events) and what the pointer reads from the same arrays."""
    series = _series(timeline, arrays)
    axes = {"wall": Axis(series=series, by_event=False), "event": Axis(series=series, by_event=True)}
    figures = {name: timeline_figure(rank, axis) for name, axis in axes.items()}
    unrecorded_ns = sum(end - start for start, end in timeline.gaps)
    span_ns = series.times_ns[-1] - series.times_ns[0]
    readings = [
        {"label": category_ink(name).label, "category": name, "color": category_ink(name).color, "array": reference}
        for name, reference in series.category_refs.items()
    ]
    return {
        # A wall-clock axis that is mostly gap shows nothing.
        "axis": "event" if unrecorded_ns * 2 > span_ns else "wall",
        "figures": {"wall": _with_time(rank, figures["wall"]), "event": figures["event"]},
        "seconds": series.seconds_ref,
        "events": series.events_ref,
        "categories": readings,
        "allocated": series.allocated_ref,
        "reserved": series.reserved_ref,
        "lanes": {name: _lane_texts(rank, axis) for name, axis in axes.items()},
    }


def _with_time(rank: RankReport, figure: Figure) -> Figure:
    """Return the figure by wall clock with room for the lanes of time, and its axis as long as they are."""
    tracks = rank.time_tracks
    if tracks is None or not tracks.lanes:
        return figure
    origin = origin_ns(rank, tracks)
    figure = with_time_rows(figure, lane_rows(tracks))
    axis = figure["layout"]["xaxis"]
    first = min(int(lane.start_ns[0]) - origin for lane in tracks.lanes) / 1e9
    last = max(int(lane.end_ns[-1]) - origin for lane in tracks.lanes) / 1e9
    axis["range"] = [min(axis["range"][0], first), max(axis["range"][1], last)]
    return figure


def _lane_texts(rank: RankReport, axis: Axis) -> dict[str, list[list[Any]]]:
    return {
        lane: [[span["start"], span["end"], span["text"]] for span in spans]
        for lane, spans in lanes(rank, axis).items()
    }


def _series(timeline: Timeline, arrays: Arrays) -> Series:
    """Return the arrays of a timeline, with a point of nothing at the start of each gap so that lines break there."""
    times, events = timeline.time_ns.tolist(), timeline.event.tolist()
    start_ns = times[0]
    breaks = sorted((bisect_right(times, start), start) for start, _ in timeline.gaps)
    all_times = _with_breaks(times, breaks, [time for _, time in breaks])
    all_events = _with_breaks(events, breaks, [events[min(index, len(events) - 1)] for index, _ in breaks])
    empty = [_NAN] * len(breaks)
    columns = {name: timeline.by_category[name] for name in stack_order(list(timeline.by_category))}
    lines = [column for column in (timeline.allocated_bytes, timeline.reserved_bytes) if column is not None]
    return Series(
        times_ns=all_times,
        events=all_events,
        seconds_ref=arrays.add((time - start_ns) / 1e9 for time in all_times),
        events_ref=arrays.add(all_events),
        category_refs={
            name: arrays.add(_with_breaks(column.tolist(), breaks, empty)) for name, column in columns.items()
        },
        allocated_ref=_optional(timeline.allocated_bytes, breaks, arrays),
        is_rounded=timeline.allocated_bytes is not None
        and bool((timeline.allocated_bytes != timeline.requested_bytes).any()),
        reserved_ref=_optional(timeline.reserved_bytes, breaks, arrays),
        top_bytes=max(int(column.max()) for column in (timeline.requested_bytes, *lines)),
    )


def _optional(column: Any, breaks: Sequence[tuple[int, int]], arrays: Arrays) -> Reference | None:
    return None if column is None else arrays.add(_with_breaks(column.tolist(), breaks, [_NAN] * len(breaks)))


def _with_breaks(values: list[Any], breaks: Sequence[tuple[int, int]], inserted: Sequence[Any]) -> list[Any]:
    """Return values with one inserted before each index of `breaks` (ascending)."""
    if not breaks:
        return values
    joined: list[Any] = []
    start = 0
    for (index, _), value in zip(breaks, inserted, strict=True):
        joined += values[start:index]
        joined.append(value)
        start = index
    return joined + values[start:]
