"""Room for lanes of time below a timeline: what the GPU did, on the axis of the memory.

The page draws the stretches themselves on a canvas over the room that is left here, since plotly takes seconds for
thousands of bars. The subplot makes its labels, and zooming and panning, the same as everywhere in the figure.
"""

from __future__ import annotations

from collections.abc import Sequence

from memtrace.analysis.results.report import RankReport
from memtrace.report.page.figures.plotly import Figure, base_layout
from memtrace.report.page.figures.timeline_axis import Axis
from memtrace.report.page.figures.timeline_lanes import lane_bars, lanes
from memtrace.report.page.figures.timeline_marks import step_lines

ROW_PX = 18
_GAP_PX = 12
_STEP_PX = 28
_ABOVE_PX, _BELOW_PX = 26, 44
_LEFT_PX = 96


def with_time_rows(figure: Figure, rows: Sequence[str]) -> Figure:
    """Return a timeline with room for rows of time at its foot; what was there keeps its height."""
    layout = figure["layout"]
    margin = layout["margin"]
    before = layout["height"] - margin["t"] - margin["b"]
    room = len(rows) * ROW_PX + _GAP_PX
    moved = {
        name: axis | {"domain": [(room + share * before) / (room + before) for share in axis["domain"]]}
        for name, axis in layout.items()
        if name.startswith("yaxis")
    }
    layout = layout | moved | _rows_axis(rows, len(rows) * ROW_PX / (room + before))
    layout["height"] += room
    layout["margin"] = margin | {"l": _LEFT_PX}
    layout["xaxis"] = layout["xaxis"] | {"anchor": "y3"}
    return {"data": [*figure["data"], _anchor()], "layout": layout}


def time_figure(rank: RankReport, axis: Axis, rows: Sequence[str]) -> Figure:
    """Return the rows of time alone, with the steps above them, for a rank of which no memory was recorded."""
    room = len(rows) * ROW_PX
    whole = room + _GAP_PX + _STEP_PX
    last = (axis.series.times_ns[-1] - axis.series.times_ns[0]) / 1e9
    steps = lanes(rank, axis)["step"]
    text = {"color": "var(--muted)", "size": 11}
    still = {"fixedrange": True, "showgrid": False, "zeroline": False, "tickmode": "array", "tickfont": text}
    layout = base_layout() | {
        "height": whole + _ABOVE_PX + _BELOW_PX,
        "margin": {"l": _LEFT_PX, "r": 16, "t": _ABOVE_PX, "b": _BELOW_PX},
        "barmode": "overlay",
        "dragmode": "zoom",
        "hovermode": False,
        "uniformtext": {"mode": "hide", "minsize": 10},
        "xaxis": {
            "range": [0, last],
            "title": {"text": axis.title, "font": {"size": 12, "color": "var(--muted)"}, "standoff": 8},
            "anchor": "y3",
            "showgrid": False,
            "zeroline": False,
            "ticks": "outside",
            "ticklen": 4,
            "tickcolor": "var(--line)",
            "tickfont": {"color": "var(--muted)"},
        },
        "yaxis2": still
        | {
            "domain": [1 - _STEP_PX / whole, 1],
            "range": [0.5, 1.5],
            "tickvals": [1],
            "ticktext": ["step"] * bool(steps),
        },
        **_rows_axis(rows, room / whole),
    }
    layout["shapes"] = [one | {"yref": "y3 domain"} for one in step_lines(rank, axis)]
    return {"data": [*lane_bars(steps, 1), _anchor()], "layout": layout}


def _rows_axis(rows: Sequence[str], top: float) -> Figure:
    return {
        "yaxis3": {
            "domain": [0, top],
            # The first row is the highest.
            "range": [len(rows) - 0.5, -0.5],
            "fixedrange": True,
            "tickmode": "array",
            "tickvals": list(range(len(rows))),
            "ticktext": list(rows),
            "showgrid": False,
            "zeroline": False,
            "tickfont": {"color": "var(--muted)", "size": 11},
        }
    }


def _anchor() -> Figure:
    """Return a trace of nothing: plotly makes a subplot only where a trace is."""
    return {
        "type": "scatter",
        "mode": "lines",
        "name": "time",
        "x": [None],
        "y": [None],
        "yaxis": "y3",
        "hoverinfo": "skip",
    }
