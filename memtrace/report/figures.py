"""Figures as plotly draws them: traces and layout as plain dictionaries. The only file that imports plotly.

In: results and `Series`, whose arrays are references into the payload, so that an array is written once a page however
many traces use it. Out: JSON for `Plotly.react`. Colours may be `var(--name)`: the page resolves them, so that one
figure serves both themes. The dictionaries are checked against plotly's own validators in tests/report/test_html.py;
building them through plotly.graph_objects would cost half a second a report.
"""

from __future__ import annotations

import html
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import plotly.offline

from memtrace.analysis.results import ModuleRow, RankReport
from memtrace.report.palette import category_ink, phase_ink, stack_order
from memtrace.units import format_bytes, format_ns

Figure = dict[str, Any]
Reference = dict[str, int]

_LANE_DOMAIN = [0.0, 0.13]
_PLOT_DOMAIN = [0.17, 1.0]
# A capacity line far above the curves would press them flat: it is drawn when the curves reach this share of it.
_CAPACITY_SHOWN_FROM = 0.5
_TICK_STEPS = 5
_MAX_STEP_LINES = 200
MAX_MODULES_SPLIT = 1500
"""Modules up to which the icicle has a column of categories; beyond it plotly would draw for seconds."""


def plotly_script() -> str:
    """Return plotly.js as the installed plotly ships it, with plain line ends."""
    return str(plotly.offline.get_plotlyjs()).replace("\r\n", "\n")


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
    if (device := _device_used(rank, axis)) is not None:
        traces.append(device)
    bars = [bar for row, spans in enumerate(lanes(rank, axis).values()) for bar in _lane(spans, row)]
    traces += bars
    layout = _timeline_layout(axis, top)
    if not bars:
        layout |= {"yaxis": layout["yaxis"] | {"domain": [0, 1]}, "xaxis": layout["xaxis"] | {"anchor": "y"}}
        del layout["yaxis2"]
    layout["shapes"], layout["annotations"] = _step_lines(rank, axis), []
    _add_gaps(layout, rank, axis)
    if shows_capacity:
        _add_capacity(layout, rank)
    _add_oom(layout, rank, axis)
    _add_peak(layout, traces, rank, axis)
    return {"data": traces, "layout": layout}


def lanes(rank: RankReport, axis: Axis) -> dict[str, list[dict[str, Any]]]:
    """Return the spans below the timeline by lane: start and end on the axis, text, colour, hatching.

    Sorted by start, so that a phase inside another one is drawn over it.
    """
    end_ns = axis.series.times_ns[-1]
    steps, phases = [], []
    for step in rank.steps:
        if not step.recorded:
            continue
        if step.start_ns is not None:
            span = _span(
                axis, step.start_ns, step.end_ns or end_ns, "before step 1" if step.step == 0 else f"step {step.step}"
            )
            steps.append(span | {"color": "var(--phase-other)", "hatched": False})
        for phase in sorted(step.phases, key=lambda phase: phase.start_ns):
            ink = phase_ink(phase.phase)
            span = _span(axis, phase.start_ns, phase.end_ns or end_ns, ink.label)
            phases.append(span | {"color": ink.color, "hatched": ink.hatched})
    return {"phase": phases, "step": steps}


def _span(axis: Axis, start_ns: int, end_ns: int, text: str) -> dict[str, Any]:
    return {"start": axis.place(start_ns), "end": axis.place(end_ns), "text": text}


def _lane(spans: Sequence[Mapping[str, Any]], row: int) -> list[Figure]:
    """Return the bars of one lane: the plain ones, and over them the hatched ones."""
    plain = [span for span in spans if not span["hatched"]]
    hatched = [span for span in spans if span["hatched"]]
    bars = [_bars(plain, row)] if plain else []
    if hatched:
        # One colour and not one a bar: plotly warns about a list of colours under a pattern.
        pattern = {"shape": "/", "fgcolor": "var(--hatch)", "fillmode": "overlay", "size": 6}
        strip = _bars(hatched, row, color=hatched[0]["color"], pattern=pattern)
        # A low strip, so that what it lies inside of can still be read.
        bars.append(strip | {"y": [row - 0.29] * len(hatched), "width": 0.28, "text": None})
    return bars


def _bars(spans: Sequence[Mapping[str, Any]], row: int, **marker: Any) -> Figure:
    colors = [span["color"] for span in spans]
    return {
        "type": "bar",
        "orientation": "h",
        "yaxis": "y2",
        "name": "lane",
        "y": [row] * len(spans),
        "base": [span["start"] for span in spans],
        "x": [span["end"] - span["start"] for span in spans],
        "width": 0.86,
        "text": [html.escape(span["text"], quote=False) for span in spans],
        "textposition": "inside",
        "insidetextanchor": "middle",
        "textangle": 0,
        "constraintext": "inside",
        "textfont": {"size": 11, "color": "var(--ink)"},
        "marker": {"color": colors, "line": {"width": 1, "color": "var(--panel)"}, **marker},
        "hoverinfo": "skip",
    }


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
    return _base_layout() | {
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


def _base_layout() -> Figure:
    return {
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "font": {"family": "var(--font)", "size": 12, "color": "var(--ink)"},
        "showlegend": False,
        "autosize": True,
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


def _step_lines(rank: RankReport, axis: Axis) -> list[Figure]:
    """Return a thin line where each recorded step begins, unless there are so many that they would be a grey veil."""
    starts = [step.start_ns for step in rank.steps if step.recorded and step.start_ns is not None and step.step > 0]
    if len(starts) > _MAX_STEP_LINES:
        return []
    places = [axis.place(start) for start in starts]
    return [_shape("line", [x, x], [0, 1], line={"color": "var(--muted)", "width": 0.7, "dash": "dot"}) for x in places]


def _shape(kind: str, xs: Sequence[float], ys: Sequence[float], **more: Any) -> Figure:
    place = {"xref": "x", "yref": "y domain", "x0": xs[0], "x1": xs[1], "y0": ys[0], "y1": ys[1]}
    return {"type": kind, **place, "line": {"width": 0}, **more}


def _add_gaps(layout: Figure, rank: RankReport, axis: Axis) -> None:
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


def _add_capacity(layout: Figure, rank: RankReport) -> None:
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


def _device_used(rank: RankReport, axis: Axis) -> Figure | None:
    """Return what the driver reported as used at the end of each step, `None` where it was never asked."""
    ends = [(step.end_ns, step.end.device_used_bytes) for step in rank.steps if step.end is not None]
    known = [(axis.place(time), used) for time, used in ends if time is not None and used is not None]
    if not known:
        return None
    # Marks without a line between them: what it was meanwhile, nobody asked.
    marker = {"size": 8, "symbol": "diamond-open", "color": "var(--ink)", "line": {"width": 1.5}}
    points = {"x": [x for x, _ in known], "y": [y for _, y in known], "mode": "markers", "type": "scatter"}
    return {**points, "name": "device, all processes", "meta": "device", "marker": marker, "hoverinfo": "skip"}


def _add_oom(layout: Figure, rank: RankReport, axis: Axis) -> None:
    """Mark where memory ran out."""
    if rank.oom is None or rank.oom.time_ns is None:
        return
    x = axis.place(rank.oom.time_ns)
    layout["shapes"].append(_shape("line", [x, x], [0, 1], line={"color": "var(--bad)", "width": 2}))
    asked = "" if rank.oom.request_bytes is None else f" for {format_bytes(rank.oom.request_bytes)}"
    note = _note(x, 1, f"<b>out of memory</b>{asked}", yref="y domain", xanchor="right", xshift=-6, yanchor="top")
    layout["annotations"].append(note | {"font": {"size": 12, "color": "var(--bad)"}, "bgcolor": "var(--panel)"})


def _add_peak(layout: Figure, traces: list[Figure], rank: RankReport, axis: Axis) -> None:
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


@dataclass(slots=True)
class _Node:
    """One rectangle of the module figure."""

    label: str
    parent: str
    color: str
    own_bytes: int
    total_bytes: int
    own_categories: dict[str, int]
    by_category: dict[str, int]


def _node(label: str, parent: str, color: str) -> _Node:
    return _Node(label=label, parent=parent, color=color, own_bytes=0, total_bytes=0, own_categories={}, by_category={})


def module_figure(rows: Sequence[ModuleRow]) -> Figure | None:
    """Return the bytes at the peak as an icicle: modules inside modules, and in the last column what they are for."""
    if not rows:
        return None
    nodes = _module_tree(rows)
    if len(rows) <= MAX_MODULES_SPLIT:
        _add_categories(nodes)
    icicle = {
        "type": "icicle",
        "ids": list(nodes),
        "labels": [html.escape(node.label, quote=False) for node in nodes.values()],
        "parents": [node.parent for node in nodes.values()],
        "values": [node.total_bytes for node in nodes.values()],
        # One line: most rectangles are too low for two.
        "text": [
            f"{html.escape(node.label, quote=False)}  {format_bytes(node.total_bytes)}" for node in nodes.values()
        ],
        "hovertext": [_module_hover(path, node) for path, node in nodes.items()],
        "branchvalues": "total",
        "textinfo": "text",
        "hoverinfo": "text",
        "sort": False,
        "leaf": {"opacity": 1},
        "tiling": {"orientation": "h", "pad": 0},
        "pathbar": {"visible": False},
        "marker": {
            "colors": [node.color for node in nodes.values()],
            "line": {"width": 1, "color": "var(--panel)"},
        },
        "textfont": {"size": 12},
        "insidetextfont": {"size": 12},
    }
    layout = _base_layout() | {"height": 520, "margin": {"l": 0, "r": 0, "t": 0, "b": 0}}
    layout["uniformtext"] = {"mode": "hide", "minsize": 10}
    layout["hoverlabel"] = {"align": "left", "font": {"family": "var(--font)", "size": 12}}
    return {"data": [icicle], "layout": layout}


def _module_tree(rows: Sequence[ModuleRow]) -> dict[str, _Node]:
    """Return the rectangles by id, parents before children, children in the order of the model (2 before 10)."""
    nodes = {"all": _node("all modules", "", "var(--phase-backward)")}
    for row in sorted(rows, key=lambda row: _natural(row.module)):
        parts = ["outside any module"] if row.module is None else row.module.split(".")
        # A module may be called like anything, the root id included: ids are paths under the root.
        paths = [".".join(["all", *parts[:depth]]) for depth in range(len(parts) + 1)]
        for parent, path, part in zip(paths, paths[1:], parts, strict=False):
            nodes.setdefault(path, _node(part, parent, "var(--phase-forward)"))
        nodes[paths[-1]].own_bytes += row.num_bytes
        _count(nodes[paths[-1]].own_categories, row.by_category)
        for path in paths:
            nodes[path].total_bytes += row.num_bytes
            _count(nodes[path].by_category, row.by_category)
    return nodes


def _count(sums: dict[str, int], by_category: Mapping[str, int]) -> None:
    for category, num_bytes in by_category.items():
        sums[category] = sums.get(category, 0) + num_bytes


def _add_categories(nodes: dict[str, _Node]) -> None:
    """Add to each module a rectangle for each category of its own bytes; only they are coloured."""
    for path, node in list(nodes.items()):
        for category in stack_order(list(node.own_categories)):
            ink, num_bytes = category_ink(category), node.own_categories[category]
            leaf = _node(ink.label, path, ink.color)
            leaf.own_bytes = leaf.total_bytes = num_bytes
            leaf.by_category = {category: num_bytes}
            # No module path holds two dots in a row.
            nodes[f"{path}..{category}"] = leaf


def _natural(module: str | None) -> tuple[int, list[tuple[int, str]]]:
    """Return the sort key of a module path: numbers by value; what is outside any module comes last."""
    if module is None:
        return 1, []
    return 0, [(int(part), "") if part.isdecimal() and part.isascii() else (-1, part) for part in module.split(".")]


def _module_hover(path: str, node: _Node) -> str:
    """Return what the pointer shows: whole and own bytes, and the categories, largest first."""
    name = "all modules" if path == "all" else path.removeprefix("all.").replace("..", ": ")
    lines = [f"<b>{html.escape(name, quote=False)}</b>  {format_bytes(node.total_bytes)}"]
    if 0 < node.own_bytes < node.total_bytes:
        lines.append(f"of its own, without the modules in it: {format_bytes(node.own_bytes)}")
    for category, num_bytes in sorted(node.by_category.items(), key=lambda item: -item[1]):
        lines.append(f"{html.escape(category_ink(category).label, quote=False)}  {format_bytes(num_bytes)}")
    return "<br>".join(lines)
