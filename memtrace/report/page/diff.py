"""A comparison of two traces as one HTML file that needs nothing else: both curves on one axis, and what differs.

In: `Diff`. Out: the text of the page, complete without its script. Every number is a field of the result; only places
on the chart and lengths of bars are worked out.
"""

from __future__ import annotations

from collections.abc import Sequence

from memtrace.analysis.results.diff import Diff, NamedDiff, RankDiff, StackDiff
from memtrace.report.drawing.palette import category_ink
from memtrace.report.page.assets import viewer_text
from memtrace.report.page.curves import Side, curve_rules, legend, overlay
from memtrace.report.page.parts import page, section, size, table, text
from memtrace.schema.frames import own_frames, short_place
from memtrace.units import format_bytes

_MAX_ROWS = 50


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
        style="\n".join([viewer_text("diff.css"), curve_rules(), *rules, ""]),
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


def _chart(rank: RankDiff) -> str:
    assert rank.curve_a is not None
    assert rank.curve_b is not None
    return overlay([Side(name="A", curve=rank.curve_a), Side(name="B", curve=rank.curve_b)])


# Bars and tables


def _bars(at: int, rank: RankDiff) -> str:
    rows = "".join(
        f'<li class="row" id="bar-{at}-{number}"><span class="name">{text(_label(one))}</span>'
        f'<span class="track"><span class="side-0"></span><span class="side-1"></span></span>'
        f'<span class="value number">{size(one.a_bytes)} → {size(one.b_bytes)} {_delta(one.delta_bytes)}</span></li>'
        for number, one in enumerate(rank.categories)
    )
    peaks = f"{size(rank.peak_a_bytes)} → {size(rank.peak_b_bytes)}"
    lead = f'<p class="lead">Peak, {rank.compares}: {peaks}</p>'
    return f'<div class="chart">{legend(("A", "B"))}{lead}<ul class="rows">{rows}</ul></div>'


def _lengths(at: int, rank: RankDiff) -> list[str]:
    scale = max([1, *(max(one.a_bytes, one.b_bytes) for one in rank.categories)])
    return [
        f"#bar-{at}-{number} .side-{side}{{width:{100 * num_bytes / scale:.3f}%{'' if num_bytes else ';min-width:0'}}}"
        for number, one in enumerate(rank.categories)
        for side, num_bytes in enumerate((one.a_bytes, one.b_bytes))
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
