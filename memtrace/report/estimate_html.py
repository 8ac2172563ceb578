"""An estimate as one HTML file that needs nothing else: complete without its script, no network.

In: `Estimate`, and a `Comparison` where a recording stands beside it. Out: the text of the page. Every number is a
field of a result; only the lengths of bars are worked out, as rules of the style sheet, which a content security policy
names by its hash.
"""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence

from memtrace import __version__
from memtrace.forecast.results import Comparison, Estimate, PhaseEstimate
from memtrace.report.assets import joined_modules, viewer_text
from memtrace.report.estimate import verdict
from memtrace.report.markup import filled, source_hash, visible
from memtrace.report.palette import category_ink, css_variables, stack_order
from memtrace.units import format_bytes

FAR_CAPACITY = 3
"""A capacity so many times the peak is not drawn: bars beside it would be too short to compare."""


def render_estimate(estimate: Estimate, comparison: Comparison | None = None) -> str:
    """Return the page of an estimate, complete in itself."""
    sections = [_chart(estimate), _phases_table(estimate), _layer_table(estimate)]
    if comparison is not None:
        sections.insert(1, _comparison(comparison))
    sections.append(_assumptions(estimate))
    styles = "\n".join(
        [css_variables() + viewer_text("report.css") + viewer_text("estimate.css"), *_rules(estimate), ""]
    )
    script = joined_modules("whatif")
    return filled(
        viewer_text("estimate.html"),
        {
            "policy": (
                f"default-src 'none'; script-src {source_hash(script)}; style-src {source_hash(styles)}; "
                "img-src data:; base-uri 'none'; form-action 'none'"
            ),
            "title": _text(estimate.model),
            "verdict": _text(verdict(estimate)),
            "styles": styles,
            "sections": "\n".join(sections),
            "version": _text(__version__),
            "script": script,
        },
    )


def _names(estimate: Estimate) -> list[str]:
    return stack_order(sorted({name for one in estimate.phases for name in one.by_category}))


def _scale(estimate: Estimate) -> int:
    """Return the bytes that the whole width stands for."""
    capacity = estimate.capacity_bytes or 0
    near = capacity if capacity <= FAR_CAPACITY * estimate.peak.peak_bytes else 0
    return max(1, estimate.high_bytes, near)


def _chart(estimate: Estimate) -> str:
    keys = [
        f'<span><span class="swatch {_class(name)}"></span>{_text(category_ink(name).label)}</span>'
        for name in _names(estimate)
    ]
    keys.append('<span><span class="doubt"></span>range of the peak</span>')
    if estimate.capacity_bytes is not None:
        keys.append('<span><span class="limit"></span>capacity</span>')
    bars = "".join(_bar(estimate, at, phase) for at, phase in enumerate(estimate.phases))
    return (
        '<section aria-labelledby="phases"><div class="section-head"><h2 id="phases">Peak of each phase</h2></div>'
        f'<div class="panel chart"><div class="legend">{"".join(keys)}</div><ul class="rows">{bars}</ul></div>'
        "</section>"
    )


def _bar(estimate: Estimate, at: int, phase: PhaseEstimate) -> str:
    parts = "".join(
        f'<span class="part {_class(name)}" id="part-{at}-{_class(name)}" '
        f'title="{_text(category_ink(name).label)}: {_text(format_bytes(phase.by_category[name]))}"></span>'
        for name in _names(estimate)
        if phase.by_category.get(name)
    )
    capacity = estimate.capacity_bytes
    limit = '<span class="limit"></span>' if capacity is not None and capacity <= _scale(estimate) else ""
    is_peak = phase is estimate.peak
    doubt = '<span class="doubt"></span>' if is_peak else ""
    kinds = (" fullest" if is_peak else "") + (" gap" if _starts_steady(estimate, at) else "")
    return (
        f'<li class="row{kinds}"><span class="name">{_text(_name(phase))}</span>'
        f'<span class="track" role="img" aria-label="{_text(_name(phase))}: {_text(format_bytes(phase.peak_bytes))}">'
        f"{parts}{doubt}{limit}</span>"
        f'<span class="value number">{_text(format_bytes(phase.peak_bytes))}</span></li>'
    )


def _starts_steady(estimate: Estimate, at: int) -> bool:
    return at > 0 and estimate.phases[at].step != estimate.phases[at - 1].step


def _name(phase: PhaseEstimate) -> str:
    return f"{'first step' if phase.step == 'first' else 'steady state'}, {phase.phase}"


def _class(name: str) -> str:
    """Return the class of a category: its name, of which only letters and underscores are left."""
    return "of-" + "".join(char for char in name if char.isalpha() or char == "_")


def _rules(estimate: Estimate) -> list[str]:
    """Return the style rules for colours and lengths."""
    scale = _scale(estimate)
    rules = [f".{_class(name)}{{--color:{category_ink(name).color};}}" for name in _names(estimate)]
    for at, phase in enumerate(estimate.phases):
        for name, size in phase.by_category.items():
            rules.append(f"#part-{at}-{_class(name)}{{width:{100 * size / scale:.3f}%}}")
    low, high = estimate.low_bytes, estimate.high_bytes
    rules.append(f".track .doubt{{left:{100 * low / scale:.3f}%;width:{100 * (high - low) / scale:.3f}%}}")
    if estimate.capacity_bytes is not None:
        rules.append(f".track .limit{{left:{100 * estimate.capacity_bytes / scale:.3f}%}}")
    return rules


def _phases_table(estimate: Estimate) -> str:
    names = _names(estimate)
    heads = ["phase", "peak", *(category_ink(name).label for name in names), "the program is"]
    rows = [
        [_name(one), _size(one.peak_bytes), *(_size(one.by_category.get(name, 0)) for name in names), _text(one.where)]
        for one in estimate.phases
    ]
    return _section("figures", "Bytes by category", _table(heads, rows, number_columns=range(1, 2 + len(names))))


def _layer_table(estimate: Estimate) -> str:
    rows = [[_text(name), _size(size)] for name, size in sorted(estimate.layer_terms.items(), key=lambda one: -one[1])]
    title = "What one layer keeps for backward, of one micro-batch, before recomputation"
    return _section("layer", title, _table(["tensor", "bytes"], rows, number_columns=range(1, 2)))


def _comparison(comparison: Comparison) -> str:
    rows = [
        [
            _text("total" if row.name == "total" else category_ink(row.name).label),
            _size(row.estimated_bytes),
            "not recorded" if row.recorded_bytes is None else _size(row.recorded_bytes),
            "" if row.error_pct is None else _text(f"{row.error_pct:+.2f} %"),
        ]
        for row in comparison.rows
    ]
    notes = "".join(f'<p class="muted">{_text(note)}</p>' for note in comparison.notes)
    body = _table(["", "estimated", "recorded", "error"], rows, number_columns=range(1, 4)) + notes
    return _section("against", comparison.title, body)


def _assumptions(estimate: Estimate) -> str:
    items = "".join(f"<li>{_text(one)}</li>" for one in estimate.assumptions)
    settings = _settings(estimate.settings)
    return _section("assumed", "Set and assumed", f'<p class="muted">{settings}</p><ul class="assumed">{items}</ul>')


def _settings(settings: Mapping[str, object]) -> str:
    return _text(", ".join(f"{name.replace('_', '-')} {value}" for name, value in settings.items()))


def _section(key: str, title: str, body: str) -> str:
    return (
        f'<section aria-labelledby="{key}"><div class="section-head"><h2 id="{key}">{_text(title)}</h2></div>'
        f'<div class="panel">{body}</div></section>'
    )


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]], *, number_columns: range) -> str:
    """Return a table; the cells of rows are markup already."""
    top = "".join(
        f'<th scope="col"{" class=number" if at in number_columns else ""}>{_text(head)}</th>'
        for at, head in enumerate(heads)
    )
    body = "".join(
        "<tr>"
        + "".join(f"<td{' class=number' if at in number_columns else ''}>{cell}</td>" for at, cell in enumerate(row))
        + "</tr>"
        for row in rows
    )
    return (
        f'<div class="scroll"><table class="figures"><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>'
    )


def _size(num_bytes: int) -> str:
    return f'<span title="{num_bytes:,} bytes">{_text(format_bytes(num_bytes))}</span>'


def _text(text: str) -> str:
    """Return text that can stand in an element or in a quoted attribute."""
    return html.escape(str(visible(text)))
