"""What is marked on a timeline: steps, gaps, capacity, what the driver reported, an out-of-memory, and the peak."""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import Any

from memtrace.analysis.results.report import RankReport
from memtrace.report.page.figures.plotly import Figure
from memtrace.report.page.figures.timeline_axis import Axis
from memtrace.units import format_bytes, format_ns

_MAX_STEP_LINES = 200


def step_lines(rank: RankReport, axis: Axis) -> list[Figure]:
    """Return a thin line where each recorded step begins, unless there are so many that they would be a grey veil."""
    starts = [step.start_ns for step in rank.steps if step.recorded and step.start_ns is not None and step.step > 0]
    if len(starts) > _MAX_STEP_LINES:
        return []
    places = [axis.place(start) for start in starts]
    return [_shape("line", [x, x], [0, 1], line={"color": "var(--muted)", "width": 0.7, "dash": "dot"}) for x in places]


def _shape(kind: str, xs: Sequence[float], ys: Sequence[float], **more: Any) -> Figure:
    place = {"xref": "x", "yref": "y domain", "x0": xs[0], "x1": xs[1], "y0": ys[0], "y1": ys[1]}
    return {"type": kind, **place, "line": {"width": 0}, **more}


def add_gaps(layout: Figure, rank: RankReport, axis: Axis) -> None:
    """Mark the stretches in which nothing was recorded: an empty band, or a line where the axis has no width for it."""
    assert rank.timeline is not None
    for start_ns, end_ns in rank.timeline.gaps:
        xs = [axis.place(start_ns), axis.place(end_ns)]
        if axis.by_event:
            xs[0] = xs[1]
            line = {"color": "var(--ink)", "width": 1.5, "dash": "dash"}
            layout["shapes"].append(_shape("line", xs, [0, 1], line=line))
        else:
            layout["shapes"].append(_shape("rect", xs, [0, 1], fillcolor="var(--grid)", opacity=0.6, layer="below"))
        text = f"not recorded<br>{format_ns(end_ns - start_ns)}"
        layout["annotations"].append(_note((xs[0] + xs[1]) / 2, 0.5, text, yref="y domain", bgcolor="var(--panel)"))


def _note(x: float | int, y: float, text: str, **more: Any) -> Figure:
    font = {"size": 11, "color": "var(--muted)"}
    return {"x": x, "y": y, "xref": "x", "yref": "y", "text": text, "showarrow": False, "font": font, **more}


def add_capacity(layout: Figure, rank: RankReport) -> None:
    """Draw a line at the memory of the device."""
    assert rank.capacity_bytes is not None
    capacity = rank.capacity_bytes
    line = {"color": "var(--bad)", "width": 1.2}
    shape = {
        "type": "line",
        "xref": "x domain",
        "yref": "y",
        "x0": 0,
        "x1": 1,
        "y0": capacity,
        "y1": capacity,
        "line": line,
    }
    layout["shapes"].append(shape)
    note = _note(1, capacity, f"capacity {format_bytes(capacity)}", xanchor="right", yanchor="bottom")
    layout["annotations"].append(note | {"xref": "x domain", "font": {"size": 11, "color": "var(--bad)"}})


def device_used(rank: RankReport, axis: Axis) -> Figure | None:
    """Return what the driver reported as used at the end of each step, `None` where it was never asked."""
    ends = [(step.end_ns, step.end.device_used_bytes) for step in rank.steps if step.end is not None]
    known = [(axis.place(time), used) for time, used in ends if time is not None and used is not None]
    if not known:
        return None
    # Marks without a line between them: what it was meanwhile, nobody asked.
    marker = {"size": 8, "symbol": "diamond-open", "color": "var(--ink)", "line": {"width": 1.5}}
    points = {"x": [x for x, _ in known], "y": [y for _, y in known], "mode": "markers", "type": "scatter"}
    return {**points, "name": "device, all processes", "meta": "device", "marker": marker, "hoverinfo": "skip"}


def add_oom(layout: Figure, rank: RankReport, axis: Axis) -> None:
    """Mark where memory ran out."""
    if rank.oom is None or rank.oom.time_ns is None:
        return
    x = axis.place(rank.oom.time_ns)
    layout["shapes"].append(_shape("line", [x, x], [0, 1], line={"color": "var(--bad)", "width": 2}))
    asked = "" if rank.oom.request_bytes is None else f" for {format_bytes(rank.oom.request_bytes)}"
    note = _note(x, 1, f"<b>out of memory</b>{asked}", yref="y domain", xanchor="right", xshift=-6, yanchor="top")
    layout["annotations"].append(note | {"font": {"size": 12, "color": "var(--bad)"}, "bgcolor": "var(--panel)"})


def add_peak(layout: Figure, traces: list[Figure], rank: RankReport, axis: Axis) -> None:
    """Mark the peak: a ring on the curve, and beside it how much, in which step and phase."""
    peak = rank.peak
    height = peak.requested_bytes if axis.series.allocated_ref is None else peak.allocated_bytes
    if peak.time_ns is None or height is None:
        return
    by_event = axis.by_event and peak.event is not None
    x = float(peak.event) if by_event and peak.event is not None else axis.place(peak.time_ns)
    marker = {"size": 9, "color": "var(--panel)", "line": {"width": 2.5, "color": "var(--ink)"}}
    ring = {"type": "scatter", "mode": "markers", "name": "peak", "x": [x], "y": [height], "marker": marker}
    traces.append(ring | {"hoverinfo": "skip", "cliponaxis": False})
    where = [] if peak.step is None else ["before step 1" if peak.step == 0 else f"step {peak.step}"]
    where += [] if peak.phase is None else [peak.phase]
    text = " · ".join([f"<b>peak {format_bytes(height)}</b>", *(html.escape(word, quote=False) for word in where)])
    first, last = layout["xaxis"]["range"]
    on_the_right = x > first + (last - first) * 0.7
    place = {
        "xanchor": "right" if on_the_right else "left",
        "xshift": -8 if on_the_right else 8,
        "yshift": 4,
        "yanchor": "bottom",
    }
    font = {"size": 12, "color": "var(--ink)"}
    layout["annotations"].append(
        _note(x, height, text, **place) | {"font": font, "bgcolor": "var(--panel)", "opacity": 0.95}
    )
