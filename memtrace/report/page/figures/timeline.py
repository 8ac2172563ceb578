"""The timeline of one rank as plotly draws it: categories stacked, lines above, lanes of steps and phases below."""

from __future__ import annotations

from memtrace.analysis.results.report import RankReport
from memtrace.report.drawing.palette import category_ink
from memtrace.report.page.figures.plotly import Figure, Reference, base_layout
from memtrace.report.page.figures.timeline_axis import Axis
from memtrace.report.page.figures.timeline_lanes import lane_bars, lanes
from memtrace.report.page.figures.timeline_marks import (
    add_capacity,
    add_gaps,
    add_oom,
    add_peak,
    device_used,
    step_lines,
)

_LANE_DOMAIN = [0.0, 0.13]
_PLOT_DOMAIN = [0.17, 1.0]
# A capacity line far above the curves would press them flat: it is drawn when the curves reach this share of it.
_CAPACITY_SHOWN_FROM = 0.5
_TICK_STEPS = 5


def timeline_figure(rank: RankReport, axis: Axis) -> Figure:
    """Return the timeline of one rank: categories stacked, lines above, and lanes of steps and phases below."""
    series = axis.series
    shows_capacity = rank.capacity_bytes is not None and series.top_bytes >= _CAPACITY_SHOWN_FROM * rank.capacity_bytes
    used = [step.end.device_used_bytes or 0 for step in rank.steps if step.end is not None]
    top = max(series.top_bytes, *used, (rank.capacity_bytes or 0) if shows_capacity else 0, 0)
    traces = [_area(name, axis, ref) for name, ref in series.category_refs.items()]
    if series.allocated_ref is not None and series.is_rounded:
        traces.append(_line("allocated", axis, series.allocated_ref, color="var(--ink)", width=1.0))
    if series.reserved_ref is not None:
        traces.append(_line("reserved", axis, series.reserved_ref, color="var(--muted)", width=1.5, dash="dash"))
    if (device := device_used(rank, axis)) is not None:
        traces.append(device)
    bars = [bar for row, spans in enumerate(lanes(rank, axis).values()) for bar in lane_bars(spans, row)]
    traces += bars
    layout = _timeline_layout(axis, top)
    if not bars:
        layout |= {"yaxis": layout["yaxis"] | {"domain": [0, 1]}, "xaxis": layout["xaxis"] | {"anchor": "y"}}
        del layout["yaxis2"]
    layout["shapes"], layout["annotations"] = step_lines(rank, axis), []
    add_gaps(layout, rank, axis)
    if shows_capacity:
        add_capacity(layout, rank)
    add_oom(layout, rank, axis)
    add_peak(layout, traces, rank, axis)
    return {"data": traces, "layout": layout}


def _area(category: str, axis: Axis, reference: Reference) -> Figure:
    ink = category_ink(category)
    area: Figure = {
        "type": "scatter",
        "mode": "lines",
        "name": ink.label,
        "meta": category,
        "x": axis.reference,
        "y": reference,
        "stackgroup": "categories",
        "line": {"shape": "hv", "width": 0, "color": ink.color},
        "fillcolor": ink.color,
        "hoverinfo": "skip",
    }
    if ink.hatched:
        area["fillpattern"] = {
            "shape": "/",
            "fgcolor": "var(--hatch)",
            "fillmode": "overlay",
            "size": 7,
            "solidity": 0.35,
        }
    return area


def _line(name: str, axis: Axis, reference: Reference, *, color: str, width: float, dash: str = "solid") -> Figure:
    return {
        "type": "scatter",
        "mode": "lines",
        "name": name,
        "meta": name,
        "x": axis.reference,
        "y": reference,
        "line": {"shape": "hv", "width": width, "color": color, "dash": dash},
        "hoverinfo": "skip",
    }


def _timeline_layout(axis: Axis, top_bytes: int) -> Figure:
    tick_values, tick_texts = byte_ticks(top_bytes)
    last = axis.series.events[-1] if axis.by_event else (axis.series.times_ns[-1] - axis.series.times_ns[0]) / 1e9
    first = axis.series.events[0] if axis.by_event else 0
    return base_layout() | {
        "height": 490,
        "margin": {"l": 78, "r": 16, "t": 26, "b": 44},
        "barmode": "overlay",
        "dragmode": "zoom",
        "hovermode": False,
        "uniformtext": {"mode": "hide", "minsize": 10},
        "xaxis": {
            "range": [first, max(last, first + 1e-9)],
            "title": {"text": axis.title, "font": {"size": 12, "color": "var(--muted)"}, "standoff": 8},
            "anchor": "y2",
            "showgrid": False,
            "zeroline": False,
            "ticks": "outside",
            "ticklen": 4,
            "tickcolor": "var(--line)",
            "tickfont": {"color": "var(--muted)"},
            "separatethousands": True,
            "exponentformat": "none",
        },
        "yaxis": {
            "domain": _PLOT_DOMAIN,
            "range": [0, max(top_bytes, 1) * 1.09],
            "fixedrange": True,
            "tickmode": "array",
            "tickvals": tick_values,
            "ticktext": tick_texts,
            "gridcolor": "var(--grid)",
            "zeroline": False,
            "tickfont": {"color": "var(--muted)"},
        },
        "yaxis2": {
            "domain": _LANE_DOMAIN,
            "range": [-0.5, 1.5],
            "fixedrange": True,
            "tickmode": "array",
            "tickvals": [0, 1],
            "ticktext": ["phase", "step"],
            "showgrid": False,
            "zeroline": False,
            "tickfont": {"color": "var(--muted)", "size": 11},
        },
    }


def byte_ticks(top_bytes: int) -> tuple[list[int], list[str]]:
    """Return tick values and texts for an axis from 0: multiples of a power of two, in the unit that reads best.

    >>> byte_ticks(4 * 1024**2)
    ([0, 1048576, 2097152, 3145728, 4194304], ['0', '1 MiB', '2 MiB', '3 MiB', '4 MiB'])
    """
    step = 1
    while step * (_TICK_STEPS + 1) < top_bytes:
        step *= 2
    values = [multiple * step for multiple in range(top_bytes // step + 1)]
    power = max((power for power in range(6) if step * max(len(values) - 1, 1) >= 1024**power), default=0)
    # One unit for the axis, and no more than two decimals: below that the smaller unit reads better.
    while power and (step * 4) % 1024**power:
        power -= 1
    unit = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")[power]
    return values, [f"{value / 1024**power:g} {unit}" if value else "0" for value in values]
