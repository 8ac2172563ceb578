"""An estimate as one HTML file that needs nothing else: complete without its script, no network.

In: `Estimate`, and a `Comparison` where a recording stands beside it. Out: the text of the page. Every number is a
field of a result; only the lengths of bars are worked out, as rules of the style sheet, which a content security policy
names by its hash.
"""

from __future__ import annotations

from collections.abc import Mapping

from memtrace.forecast.results import Comparison, Estimate, PhaseEstimate
from memtrace.report.answers.estimate import verdict
from memtrace.report.drawing.palette import category_ink, stack_order
from memtrace.report.page.assets import viewer_text
from memtrace.report.page.parts import page, section, size, table, text
from memtrace.units import format_bytes

FAR_CAPACITY = 3
"""A capacity so many times the peak is not drawn: bars beside it would be too short to compare."""


def render_estimate(estimate: Estimate, comparison: Comparison | None = None) -> str:
    """Return the page of an estimate, complete in itself."""
    sections = [_chart(estimate), _phases_table(estimate), _layer_table(estimate)]
    if comparison is not None:
        sections.insert(1, _comparison(comparison))
    sections.append(_assumptions(estimate))
    return page(
        kind="estimate",
        title=estimate.model,
        verdict=verdict(estimate),
        footer="arithmetic, not a recording: see the range",
        style="\n".join([viewer_text("estimate.css"), *_rules(estimate), ""]),
        sections=sections,
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
        f'<span><span class="swatch {_class(name)}"></span>{text(category_ink(name).label)}</span>'
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
        f'title="{text(category_ink(name).label)}: {text(format_bytes(phase.by_category[name]))}"></span>'
        for name in _names(estimate)
        if phase.by_category.get(name)
    )
    capacity = estimate.capacity_bytes
    limit = '<span class="limit"></span>' if capacity is not None and capacity <= _scale(estimate) else ""
    is_peak = phase is estimate.peak
    doubt = '<span class="doubt"></span>' if is_peak else ""
    kinds = (" fullest" if is_peak else "") + (" gap" if _starts_steady(estimate, at) else "")
    return (
        f'<li class="row{kinds}"><span class="name">{text(_name(phase))}</span>'
        f'<span class="track" role="img" aria-label="{text(_name(phase))}: {text(format_bytes(phase.peak_bytes))}">'
        f"{parts}{doubt}{limit}</span>"
        f'<span class="value number">{text(format_bytes(phase.peak_bytes))}</span></li>'
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
        for name, num_bytes in phase.by_category.items():
            rules.append(f"#part-{at}-{_class(name)}{{width:{100 * num_bytes / scale:.3f}%}}")
    low, high = estimate.low_bytes, estimate.high_bytes
    rules.append(f".track .doubt{{left:{100 * low / scale:.3f}%;width:{100 * (high - low) / scale:.3f}%}}")
    if estimate.capacity_bytes is not None:
        rules.append(f".track .limit{{left:{100 * estimate.capacity_bytes / scale:.3f}%}}")
    return rules


def _phases_table(estimate: Estimate) -> str:
    names = _names(estimate)
    heads = ["phase", "peak", *(category_ink(name).label for name in names), "the program is"]
    rows = [
        [_name(one), size(one.peak_bytes), *(size(one.by_category.get(name, 0)) for name in names), text(one.where)]
        for one in estimate.phases
    ]
    return section("figures", "Bytes by category", table(heads, rows, number_columns=range(1, 2 + len(names))))


def _layer_table(estimate: Estimate) -> str:
    terms = sorted(estimate.layer_terms.items(), key=lambda one: -one[1])
    rows = [[text(name), size(num_bytes)] for name, num_bytes in terms]
    has_encoder = "target_sequence" in estimate.settings
    layers = "a layer of the decoder, and one of the encoder," if has_encoder else "one layer"
    title = f"What {layers} keeps for backward, of one micro-batch, before recomputation"
    return section("layer", title, table(["tensor", "bytes"], rows, number_columns=range(1, 2)))


def _comparison(comparison: Comparison) -> str:
    rows = [
        [
            text("total" if row.name == "total" else category_ink(row.name).label),
            size(row.estimated_bytes),
            "not recorded" if row.recorded_bytes is None else size(row.recorded_bytes),
            "" if row.error_pct is None else text(f"{row.error_pct:+.2f} %"),
        ]
        for row in comparison.rows
    ]
    notes = "".join(f'<p class="muted">{text(note)}</p>' for note in comparison.notes)
    body = table(["", "estimated", "recorded", "error"], rows, number_columns=range(1, 4)) + notes
    return section("against", comparison.title, body)


def _assumptions(estimate: Estimate) -> str:
    items = "".join(f"<li>{text(one)}</li>" for one in estimate.assumptions)
    settings = _settings(estimate.settings)
    return section("assumed", "Set and assumed", f'<p class="muted">{settings}</p><ul class="assumed">{items}</ul>')


def _settings(settings: Mapping[str, object]) -> str:
    return text(", ".join(f"{name.replace('_', '-')} {value}" for name, value in settings.items()))
