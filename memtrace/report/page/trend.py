"""Several runs in a row as one HTML file that needs nothing else: a bar for each peak by category, and a table.

In: `Trend`. Out: the text of the page, complete without its script. Every number is a field of the result; only places
on the chart are worked out.
"""

from __future__ import annotations

from collections.abc import Iterator

from memtrace.analysis.results.trend import Trend, TrendRun
from memtrace.report.answers.trend import cells, remark
from memtrace.report.drawing.palette import category_ink, stack_order
from memtrace.report.drawing.ticks import byte_ticks
from memtrace.report.page.assets import viewer_text
from memtrace.report.page.curves import MAX_CURVES, Side, curve_rules, overlay
from memtrace.report.page.parts import page, section, size, table, text
from memtrace.units import format_bytes

_WIDTH, _HEIGHT = 1200, 320
_LEFT, _BOTTOM, _TOP = 84, 26, 10
_GRID_LINES = 6
_MAX_BAR = 60


def render_trend(trend: Trend) -> str:
    """Return the page of several runs, complete in itself."""
    sections = [section("history", "The peak of each run", _chart(trend)), *_curves(trend)]
    sections.append(section("runs", "Runs", _table(trend)))
    if trend.unread:
        items = "".join(f"<li>{text(one)}</li>" for one in trend.unread)
        sections.append(section("unread", "Not read", f"<ul>{items}</ul>"))
    return page(
        kind="trend",
        title=trend.title,
        verdict=trend.verdict,
        footer=f"peaks are {trend.compares} bytes, their parts requested ones",
        style=f"{viewer_text('diff.css')}\n{curve_rules()}\n",
        sections=sections,
    )


def _curves(trend: Trend) -> list[str]:
    """Return the memory of the runs over their steps, on one axis: of the latest that still can be told apart."""
    sides = [
        Side(name=f"{at}: {run.title}", curve=run.curve)
        for at, run in enumerate(trend.runs, 1)
        if run.curve is not None
    ]
    if len(sides) < 2:
        return []
    rest = len(sides) - MAX_CURVES
    lead = f'<p class="lead">The latest {MAX_CURVES} of {len(sides)} runs.</p>' if rest > 0 else ""
    return [section("curves", "Step by step", lead + overlay(sides[-MAX_CURVES:]))]


def _chart(trend: Trend) -> str:
    top = max(1, *(max(one.peak_bytes or 0, sum(one.by_category.values())) for one in trend.runs), 1)
    bars = "".join(part for at, run in enumerate(trend.runs) for part in _bar(at, len(trend.runs), run, top))
    label = f"the peak of {len(trend.runs)} runs"
    return (
        f'<div class="chart">{_legend(trend)}<svg class="curves" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" '
        f'aria-label="{text(label)}">{"".join(_grid(top))}{bars}</svg></div>'
    )


def _legend(trend: Trend) -> str:
    names = stack_order(list({name for run in trend.runs for name, num_bytes in run.by_category.items() if num_bytes}))
    swatch = (
        '<span><svg width="12" height="12" aria-hidden="true"><rect width="12" height="12" fill="{}"/></svg> {}</span>'
    )
    inks = [category_ink(name) for name in names]
    return f'<div class="legend">{"".join(swatch.format(ink.color, text(ink.label)) for ink in inks)}</div>'


def _grid(top: int) -> Iterator[str]:
    for num_bytes, label in byte_ticks(top, _GRID_LINES):
        y = _y(num_bytes, top)
        yield f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH}" y1="{y:.1f}" y2="{y:.1f}"/>'
        yield f'<text class="tick" x="{_LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{label}</text>'


def _y(num_bytes: float, top: int) -> float:
    return _HEIGHT - _BOTTOM - num_bytes / top * (_HEIGHT - _BOTTOM - _TOP)


def _bar(at: int, num_runs: int, run: TrendRun, top: int) -> Iterator[str]:
    """Yield the stretches of a bar, bottom first, with what the run is called."""
    room = (_WIDTH - _LEFT) / max(num_runs, 1)
    width = min(_MAX_BAR, room * 0.8)
    x = _LEFT + room * (at + 0.5) - width / 2
    below = 0
    said = "; ".join(one for one in (run.death, remark(run)) if one)
    name = f"{run.title}: {format_bytes(run.peak_bytes)}" + (f"; {said}" if said else "")
    yield f"<g><title>{text(name)}</title>"
    for category in stack_order([one for one, num_bytes in run.by_category.items() if num_bytes]):
        num_bytes = run.by_category[category]
        y, height = _y(below + num_bytes, top), _y(below, top) - _y(below + num_bytes, top)
        fill = category_ink(category).color
        yield f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" fill="{fill}"/>'
        below += num_bytes
    middle = x + width / 2
    yield f'<text class="tick" x="{middle:.1f}" y="{_HEIGHT - 8}" text-anchor="middle">{at + 1}</text></g>'


def _table(trend: Trend) -> str:
    heads = ["", "run", "recorded", f"peak, {trend.compares}", "change", "steady", "reserved", ""]
    rows = []
    for at, run in enumerate(trend.runs, 1):
        name, when, _, change, *_rest = cells(run)
        # As every page writes what there is none of.
        figures = (
            size(run.peak_bytes),
            "–" if run.change_bytes is None else text(change),
            size(run.steady_bytes),
            size(run.reserved_bytes),
        )
        rows.append([str(at), text(name), text(when), *figures, text(remark(run))])
    return table(heads, rows, number_columns=range(3, 7))
