"""A comparison of two traces as one HTML file that needs nothing else: both curves on one axis, and what differs.

In: `Diff`. Out: the text of the page, complete without its script. Every number is a field of the result; only places
on the chart and lengths of bars are worked out.
"""

from __future__ import annotations

from collections.abc import Sequence

from memtrace.analysis.results.diff import Diff, NamedDiff, RankDiff, StackDiff, StepCurve
from memtrace.report.drawing.palette import category_ink
from memtrace.report.drawing.ticks import byte_ticks
from memtrace.report.page.assets import viewer_text
from memtrace.report.page.parts import page, section, size, table, text
from memtrace.schema.frames import own_frames, short_place
from memtrace.units import format_bytes

_WIDTH, _HEIGHT = 1200, 300
_LEFT, _BOTTOM, _TOP = 84, 26, 10
_MAX_ROWS = 50
_GRID_LINES = 6


def render_diff(diff: Diff) -> str:
    """Return the page of a comparison, complete in itself."""
    sections = [_sides(diff)]
    rules: list[str] = []
    for at, rank in enumerate(diff.ranks):
        sections += _rank(at, rank, named=len(diff.ranks) > 1)
        rules += _lengths(at, rank)
    return page(
        kind="diff",
        title=f"{diff.title_a} → {diff.title_b}",
        verdict=diff.verdict,
        footer="differences are B less A · categories, modules and stacks at the two peaks, requested bytes",
        style="\n".join([viewer_text("diff.css"), *rules, ""]),
        sections=sections,
    )


def _sides(diff: Diff) -> str:
    parts = [f"<dt>A</dt><dd>{text(diff.title_a)}</dd><dt>B</dt><dd>{text(diff.title_b)}</dd>"]
    for side, names in (("A", diff.only_in_a), ("B", diff.only_in_b)):
        if names:
            parts.append(f"<dt>only in {side}</dt><dd>{text(', '.join(names))}</dd>")
    return section("sides", "What is compared", f'<dl class="sides">{"".join(parts)}</dl>')


def _rank(at: int, rank: RankDiff, *, named: bool) -> list[str]:
    name = ("" if rank.rank is None else f"rank {rank.rank} · ") + rank.device_b
    lead = f"{name}: " if named else ""

    def heading(words: str) -> str:
        return lead + words if lead else words[:1].upper() + words[1:]

    found = [section(f"peak-{at}", heading("categories at the peaks"), _bars(at, rank))]
    if rank.curve_a is not None and rank.curve_b is not None:
        found.insert(0, section(f"curves-{at}", heading(f"{rank.compares} bytes, step by step"), _chart(rank)))
    if rank.steps:
        rows = [[str(one.step), size(one.a_bytes), size(one.b_bytes), _delta(one.delta_bytes)] for one in rank.steps]
        heads = ["step", "peak of A", "peak of B", "B − A"]
        found.append(section(f"steps-{at}", heading("steps"), table(heads, rows, number_columns=range(1, 4))))
    if rank.modules:
        found.append(section(f"modules-{at}", heading("modules that differ at the peaks"), _modules(rank.modules)))
    if rank.stacks:
        found.append(section(f"stacks-{at}", heading("stacks that differ at the peaks"), _stacks(rank.stacks)))
    return found


def _legend() -> str:
    swatch = '<span><span class="swatch side-{}"></span>{}</span>'
    return f'<div class="legend">{swatch.format("a", "A")}{swatch.format("b", "B")}</div>'


# The chart


def _chart(rank: RankDiff) -> str:
    assert rank.curve_a is not None
    assert rank.curve_b is not None
    curves = (rank.curve_a, rank.curve_b)
    first, last = min(one.steps[0] for one in curves), max(one.steps[-1] for one in curves)
    top = max(1, *(int(one.num_bytes.max()) for one in curves))
    lines = "".join(_grid(top))
    lines += "".join(_ticks(first, last))
    paths = "".join(
        f'<path class="side-{side}" d="{_path(one, first, last, top)}"/>'
        for side, one in zip("ab", curves, strict=True)
    )
    label = f"memory of A and B from step {int(first)} to step {int(last)}"
    return (
        f'<div class="chart">{_legend()}<svg class="curves" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" '
        f'aria-label="{text(label)}">{lines}{paths}</svg></div>'
    )


def _x(step: float, first: float, last: float) -> float:
    return _LEFT + (step - first) / max(last - first, 1e-9) * (_WIDTH - _LEFT - 4)


def _y(num_bytes: float, top: int) -> float:
    return _HEIGHT - _BOTTOM - num_bytes / top * (_HEIGHT - _BOTTOM - _TOP)


def _path(curve: StepCurve, first: float, last: float, top: int) -> str:
    """Return the curve as stairs: a level holds until the next event."""
    parts: list[str] = []
    for step, num_bytes in zip(curve.steps, curve.num_bytes.tolist(), strict=True):
        x, y = f"{_x(step, first, last):.1f}", f"{_y(num_bytes, top):.1f}"
        parts.append(f"H{x}V{y}" if parts else f"M{x} {y}")
    return "".join(parts)


def _grid(top: int) -> list[str]:
    found = []
    for num_bytes, label in byte_ticks(top, _GRID_LINES):
        y = f"{_y(num_bytes, top):.1f}"
        found.append(f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH}" y1="{y}" y2="{y}"/>')
        found.append(f'<text x="{_LEFT - 8}" y="{y}" text-anchor="end" dy="4">{label}</text>')
    return found


def _ticks(first: float, last: float) -> list[str]:
    steps = range(int(first), int(last) + 1)
    every = max(1, len(steps) // 20)
    return [
        f'<text x="{_x(max(step, first), first, last):.1f}" y="{_HEIGHT - 6}">step {step}</text>'
        for step in steps[::every]
    ]


# Bars and tables


def _bars(at: int, rank: RankDiff) -> str:
    rows = "".join(
        f'<li class="row" id="bar-{at}-{number}"><span class="name">{text(_label(one))}</span>'
        f'<span class="track"><span class="side-a"></span><span class="side-b"></span></span>'
        f'<span class="value number">{size(one.a_bytes)} → {size(one.b_bytes)} {_delta(one.delta_bytes)}</span></li>'
        for number, one in enumerate(rank.categories)
    )
    peaks = f"{size(rank.peak_a_bytes)} → {size(rank.peak_b_bytes)}"
    lead = f'<p class="lead">Peak, {rank.compares}: {peaks}</p>'
    return f'<div class="chart">{_legend()}{lead}<ul class="rows">{rows}</ul></div>'


def _lengths(at: int, rank: RankDiff) -> list[str]:
    scale = max([1, *(max(one.a_bytes, one.b_bytes) for one in rank.categories)])
    return [
        f"#bar-{at}-{number} .side-{side}{{width:{100 * num_bytes / scale:.3f}%}}"
        for number, one in enumerate(rank.categories)
        for side, num_bytes in (("a", one.a_bytes), ("b", one.b_bytes))
    ]


def _label(row: NamedDiff) -> str:
    return category_ink(str(row.name)).label


def _delta(num_bytes: int | None) -> str:
    if num_bytes is None:
        return "–"
    kind = "more" if num_bytes > 0 else "less" if num_bytes < 0 else "same"
    sign = "+" if num_bytes > 0 else ""
    return f'<span class="{kind}" data-bytes="{num_bytes}">{sign}{text(format_bytes(num_bytes))}</span>'


def _modules(rows: Sequence[NamedDiff]) -> str:
    cells = [
        [text(one.name or "outside any module"), size(one.a_bytes), size(one.b_bytes), _delta(one.delta_bytes)]
        for one in rows[:_MAX_ROWS]
    ]
    return table(["module", "A", "B", "B − A"], cells, number_columns=range(1, 4)) + _rest(len(rows))


def _stacks(rows: Sequence[StackDiff]) -> str:
    cells = [
        [_frames(one.frames), size(one.a_bytes), size(one.b_bytes), _delta(one.delta_bytes)] for one in rows[:_MAX_ROWS]
    ]
    return table(["allocated at", "A", "B", "B − A"], cells, number_columns=range(1, 4)) + _rest(len(rows))


def _frames(frames: Sequence[str]) -> str:
    shown = own_frames(frames)[:4] or ("no stack recorded",)
    return f'<div class="frames-of">{"".join(f"<div>{text(short_place(frame))}</div>" for frame in shown)}</div>'


def _rest(num_rows: int) -> str:
    return f'<p class="muted">and {num_rows - _MAX_ROWS} more</p>' if num_rows > _MAX_ROWS else ""
