"""The memory of a run over time as a plotly figure, for notebooks: to be changed, joined with others, exported.

In: `RankReport`. Out: `plotly.graph_objects.Figure`, bytes stacked by category with lines for what was reserved and for
the capacity. The only file that imports plotly, and it does so when it is called: that takes half a second.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from memtrace.analysis.results.report import RankReport, Timeline
from memtrace.errors import MemtraceError
from memtrace.report.drawing.palette import category_ink, stack_order

if TYPE_CHECKING:
    import plotly.graph_objects as go

_NS = 10**9


def memory_figure(rank: RankReport) -> go.Figure:
    """Return bytes over seconds since the first moment, stacked by category.

    Raises:
        MemtraceError: the trace holds no history.
    """
    import plotly.graph_objects as go

    timeline = rank.timeline
    if timeline is None or not len(timeline.event):
        raise MemtraceError(
            "the trace holds no history of allocations to draw", hint="record it, or take a snapshot with history"
        )
    seconds = (timeline.time_ns - timeline.time_ns[0]) / _NS
    figure = go.Figure([_area(timeline, name, seconds) for name in stack_order(list(timeline.by_category))])
    lines = {"allocated": timeline.allocated_bytes, "reserved": timeline.reserved_bytes}
    for name, values in lines.items():
        if values is not None:
            figure.add_scatter(x=seconds, y=values, name=name, mode="lines", line={"shape": "hv", "width": 1.5})
    for start, end in timeline.gaps:
        figure.add_vrect(
            x0=(start - int(timeline.time_ns[0])) / _NS,
            x1=(end - int(timeline.time_ns[0])) / _NS,
            fillcolor="#888",
            opacity=0.25,
            line_width=0,
        )
    if rank.capacity_bytes is not None:
        figure.add_hline(y=rank.capacity_bytes, line_dash="dash", annotation_text="capacity")
    figure.update_layout(
        xaxis_title="seconds",
        yaxis={"title": "bytes", "exponentformat": "SI", "rangemode": "tozero"},
        hovermode="x unified",
        template="plotly_white",
    )
    return figure


def _area(timeline: Timeline, name: str, seconds: Any) -> dict[str, Any]:
    ink = category_ink(name)
    return {
        "type": "scatter",
        "x": seconds,
        "y": timeline.by_category[name],
        "name": ink.label,
        "mode": "lines",
        "stackgroup": "categories",
        "fillcolor": ink.color,
        # A level holds until the next event; a sloping line would show bytes that nobody had.
        "line": {"width": 0, "shape": "hv", "color": ink.color},
    }
