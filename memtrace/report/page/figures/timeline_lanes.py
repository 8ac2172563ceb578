"""The lanes of steps and phases below a timeline."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import Any

from memtrace.analysis.results.report import RankReport
from memtrace.report.drawing.palette import phase_ink
from memtrace.report.page.figures.plotly import Figure
from memtrace.report.page.figures.timeline_axis import Axis


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


def lane_bars(spans: Sequence[Mapping[str, Any]], row: int) -> list[Figure]:
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
