"""Evaluated layouts as one HTML file: predicted against measured, where rows say what was measured, and every row.

In: `EvaluatedLayout`s and how they agree. Out: the text of the page. Charts are markup, so that they need no script.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from memtrace.forecast.results import Agreement, EvaluatedLayout
from memtrace.report.answers.evaluation import agreement_sentence, cells_of, headings
from memtrace.report.page.assets import viewer_text
from memtrace.report.page.parts import page, section, table, text

_GIB = 2**30
_SIDE, _LEFT, _BOTTOM, _TOP = 460, 70, 46, 14
"""Units of the drawing: length of both axes, and the room for their labels."""
_WIDE = 20
"""From this ratio of largest to smallest on, axes are logarithmic."""
_FEW_DECADES = 500
"""Up to this ratio there is room for three numbers in each power of ten."""
MAX_DOTS = 4000
"""Rows of a chart beyond which more would hide each other; the table has them all."""


@dataclass(frozen=True, slots=True)
class _Dot:
    predicted: float
    measured: float
    told: str


@dataclass(frozen=True, slots=True)
class _Axis:
    """One scale for both directions, so that equal values lie on the diagonal."""

    low: float
    high: float
    is_log: bool

    def place(self, value: float) -> float:
        """Return how far along the axis a value lies, in units of the drawing."""
        if self.is_log:
            low, high = math.log(self.low), math.log(self.high)
            return _SIDE * (math.log(value) - low) / (high - low)
        return _SIDE * (value - self.low) / (self.high - self.low)


def render_evaluation(rows: Sequence[EvaluatedLayout], agreed: Mapping[str, Agreement]) -> str:
    """Return the page of evaluated layouts, complete in itself."""
    sentences = [agreement_sentence(name, one) for name, one in agreed.items()]
    drawn = rows[:MAX_DOTS]
    return page(
        kind="plan",
        title=f"{len(rows):,} layouts",
        verdict=" ".join(sentences) or f"{len(rows):,} layouts evaluated; nothing says what they measured.",
        footer="predictions are arithmetic; what was measured is what the table says",
        style=viewer_text("plan.css"),
        sections=[_charts(drawn), _all(rows)],
    )


def _charts(rows: Sequence[EvaluatedLayout]) -> str:
    throughput = [
        _Dot(row.tokens_per_second_per_gpu, row.measured_tokens_per_second_per_gpu, f"row {number:,}")
        for number, row in enumerate(rows, start=1)
        if row.measured_tokens_per_second_per_gpu is not None
    ]
    memory = [
        _Dot(row.peak_bytes / _GIB, row.measured_peak_bytes / _GIB, f"row {number:,}")
        for number, row in enumerate(rows, start=1)
        if row.measured_peak_bytes is not None
    ]
    charts = [
        _chart(dots, caption)
        for dots, caption in ((throughput, "tokens a second and GPU"), (memory, "GiB at the peak"))
        if dots
    ]
    if not charts:
        return ""
    note = '<p class="muted">On the line, prediction and measurement are the same; dashed: 10 % more and less.</p>'
    return section("agreement", "Predicted against measured", f'<div class="pairs">{"".join(charts)}</div>{note}')


def _chart(dots: Sequence[_Dot], caption: str) -> str:
    values = [value for dot in dots for value in (dot.predicted, dot.measured)]
    low, high = min(values), max(values)
    is_log = high > _WIDE * low
    axis = _Axis(low / 1.2, high * 1.2, is_log=True) if is_log else _Axis(0.0, high * 1.06, is_log=False)
    width, height = _LEFT + _SIDE + 10, _TOP + _SIDE + _BOTTOM
    marks = "".join(
        f'<circle class="dot" cx="{_x(axis, dot.measured)}" cy="{_y(axis, dot.predicted)}" r="3.5">'
        f"<title>{text(f'{dot.told}: predicted {dot.predicted:,.4g}, measured {dot.measured:,.4g} {caption}')}</title>"
        "</circle>"
        for dot in dots
    )
    bands = "".join(_line(axis, factor) for factor in (1.0, 0.9, 1.1))
    labels = (
        f'<text x="{_LEFT + _SIDE / 2}" y="{height - 6}" text-anchor="middle">measured, {text(caption)}</text>'
        f'<text x="14" y="{_TOP + _SIDE / 2}" text-anchor="middle" '
        f'transform="rotate(-90 14 {_TOP + _SIDE / 2})">predicted, {text(caption)}</text>'
    )
    name = text(f"Predicted against measured {caption} of {len(dots):,} layouts")
    return (
        f'<svg class="pair" viewBox="0 0 {width} {height}" role="img" aria-label="{name}">'
        f"{_grid(axis)}{bands}{marks}{labels}</svg>"
    )


def _x(axis: _Axis, value: float) -> str:
    return f"{_LEFT + axis.place(value):.1f}"


def _y(axis: _Axis, value: float) -> str:
    return f"{_TOP + _SIDE - axis.place(value):.1f}"


def _line(axis: _Axis, factor: float) -> str:
    """Return the line of predictions that are `factor` times what was measured, cut at the edges of the drawing."""
    start = max(axis.low, axis.low / factor)
    end = min(axis.high, axis.high / factor)
    kind = "same" if factor == 1 else "near"
    return (
        f'<line class="{kind}" x1="{_x(axis, start)}" y1="{_y(axis, factor * start)}" '
        f'x2="{_x(axis, end)}" y2="{_y(axis, factor * end)}"/>'
    )


def _grid(axis: _Axis) -> str:
    right, bottom = _LEFT + _SIDE, _TOP + _SIDE
    return "".join(
        f'<line class="grid" x1="{_x(axis, tick)}" x2="{_x(axis, tick)}" y1="{_TOP}" y2="{bottom}"/>'
        f'<line class="grid" x1="{_LEFT}" x2="{right}" y1="{_y(axis, tick)}" y2="{_y(axis, tick)}"/>'
        f'<text x="{_x(axis, tick)}" y="{bottom + 18}" text-anchor="middle">{tick:,.10g}</text>'
        f'<text x="{_LEFT - 8}" y="{float(_y(axis, tick)) + 4:.1f}" text-anchor="end">{tick:,.10g}</text>'
        for tick in _ticks(axis)
    )


def _ticks(axis: _Axis) -> list[float]:
    """Return round numbers along an axis: 1, 2 and 5 times a power of ten where it is logarithmic, or that alone."""
    if axis.is_log:
        exponents = range(math.floor(math.log10(axis.low)), math.ceil(math.log10(axis.high)) + 1)
        factors = (1, 2, 5) if axis.high < _FEW_DECADES * axis.low else (1,)
        found = [factor * 10.0**exponent for exponent in exponents for factor in factors]
        return [tick for tick in found if axis.low <= tick <= axis.high]
    rough = axis.high / 6
    unit = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * unit for factor in (1, 2, 5, 10) if factor * unit >= rough)
    return [step * at for at in range(int(axis.high / step) + 1)]


def _all(rows: Sequence[EvaluatedLayout]) -> str:
    heads = headings(rows)
    cells = [[text(cell) for cell in cells_of(number, row, rows)] for number, row in enumerate(rows, start=1)]
    return section("rows", "Every layout", table(heads, cells, number_columns=range(1, len(heads) - 2)))
