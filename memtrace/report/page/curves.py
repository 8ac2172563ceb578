"""Memory of several runs over their steps, one curve each on one axis, as SVG.

In: `StepCurve`s with what they are called. Out: markup and the rules that colour it. Only places on the chart are
worked out.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from memtrace.analysis.results.diff import StepCurve
from memtrace.report.drawing.ticks import byte_ticks
from memtrace.report.page.parts import text

MAX_CURVES = 8
"""Curves that can still be told apart on one chart."""
_COLORS = (
    "var(--muted)",
    "var(--accent)",
    "var(--category-communication)",
    "var(--category-gradient)",
    "var(--category-optimizer_state)",
    "var(--category-activation)",
    "var(--category-temporary)",
    "var(--category-buffer)",
)
_WIDTH, _HEIGHT = 1200, 300
_LEFT, _BOTTOM, _TOP = 84, 26, 10
_GRID_LINES = 6
_MAX_STEP_NAMES = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """One curve and what it is called."""

    name: str
    """As "A"."""
    curve: StepCurve
    """Its levels."""


def curve_rules() -> str:
    """Return the colours of curves in their order, as style rules."""
    return "\n".join(f".side-{at} {{ --color: {color}; }}" for at, color in enumerate(_COLORS))


def legend(names: Sequence[str]) -> str:
    """Return which curve is which."""
    keys = (f'<span><span class="swatch side-{at}"></span>{text(name)}</span>' for at, name in enumerate(names))
    return f'<div class="legend">{"".join(keys)}</div>'


def overlay(sides: Sequence[Side]) -> str:
    """Return the chart of some curves, up to `MAX_CURVES`, with its legend."""
    curves = [one.curve for one in sides]
    first, last = min(one.steps[0] for one in curves), max(one.steps[-1] for one in curves)
    top = max(1, *(int(one.num_bytes.max()) for one in curves))
    lines = "".join([*_grid(top), *_steps(first, last)])
    paths = "".join(
        f'<path class="side-{at}" d="{_path(one.curve, first, last, top)}"><title>{text(one.name)}</title></path>'
        for at, one in enumerate(sides)
    )
    label = f"memory of {', '.join(one.name for one in sides)} from step {int(first)} to step {int(last)}"
    return (
        f'<div class="chart">{legend([one.name for one in sides])}<svg class="curves" '
        f'viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{text(label)}">{lines}{paths}</svg></div>'
    )


def _x(step: float, first: float, last: float) -> float:
    return _LEFT + (step - first) / max(last - first, 1e-9) * (_WIDTH - _LEFT - 4)


def _y(num_bytes: float, top: int) -> float:
    return _HEIGHT - _BOTTOM - num_bytes / top * (_HEIGHT - _BOTTOM - _TOP)


def _path(curve: StepCurve, first: float, last: float, top: int) -> str:
    """Return the curve as stairs: a level holds until the next event, but not through steps that were not recorded."""
    parts: list[str] = []
    before: float | None = None
    for step, num_bytes in zip(curve.steps, curve.num_bytes.tolist(), strict=True):
        x, y = f"{_x(step, first, last):.1f}", f"{_y(num_bytes, top):.1f}"
        parts.append(f"M{x} {y}" if before is None or int(step) > int(before) + 1 else f"H{x}V{y}")
        before = step
    return "".join(parts)


def _grid(top: int) -> Iterator[str]:
    for num_bytes, label in byte_ticks(top, _GRID_LINES):
        y = f"{_y(num_bytes, top):.1f}"
        yield f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH}" y1="{y}" y2="{y}"/>'
        yield f'<text x="{_LEFT - 8}" y="{y}" text-anchor="end" dy="4">{label}</text>'


def _steps(first: float, last: float) -> Iterator[str]:
    steps = range(int(first), int(last) + 1)
    for step in steps[:: max(1, len(steps) // _MAX_STEP_NAMES)]:
        yield f'<text x="{_x(max(step, first), first, last):.1f}" y="{_HEIGHT - 6}">step {step}</text>'
