"""The top of the page of a report as markup, complete without a script: what happened, the peak, what to change.

In: a `Report` with its card. Out: HTML, everything out of a trace escaped; and what a preview of the page says.
"""

from __future__ import annotations

from memtrace.analysis.results.card import Card, CardChange
from memtrace.analysis.results.report import Report
from memtrace.report.drawing.card_bar import Stretch, stretches
from memtrace.report.drawing.palette import category_ink
from memtrace.report.drawing.peak_words import peak_words
from memtrace.report.page.data.values import step_name
from memtrace.report.page.parts import size, text
from memtrace.schema.frames import short_place
from memtrace.units import format_bytes

_KINDS = {"died": "died", "would-die": "died", "ended": "ended"}
_FITS = {True: ("good", "✓ fits"), False: ("bad", "✗ does not fit"), None: ("muted", "not known")}


def front(report: Report) -> str:
    """Return the card of a report as a section; empty where there is none."""
    card = report.card
    if card is None or (card.peak_bytes is None and not card.changes):
        return ""
    body = "" if card.peak_bytes is None else _peak(card) + _bar(card) + f'<p class="limits">{text(card.limits)}</p>'
    inside = f"{body}{_changes(card)}{_foot(card)}"
    return f'<section id="card" class="first" aria-label="the run in short"><div class="panel">{inside}</div></section>'


def verdict_markup(report: Report) -> str:
    """Return the verdict, of which what the card says first stands out from the rest."""
    head = "" if report.card is None else report.card.headline.rstrip(".")
    if not head or not report.verdict.startswith(head):
        return text(report.verdict)
    rest = report.verdict[len(head) :]
    return text(head) + (f'<span class="rest">{text(rest)}</span>' if len(rest) > 1 else text(rest))


def outcome_class(report: Report) -> str:
    """Return how the headline is marked: died, ended, or an empty text."""
    return "" if report.card is None else _KINDS.get(report.card.outcome, "")


def description(report: Report) -> str:
    """Return what a preview of the page says below its title: what happened, and what to change."""
    card = report.card
    if card is None:
        return report.verdict
    changes = [
        one.name if one.saves_bytes is None else f"{one.name} (saves {format_bytes(one.saves_bytes)})"
        for one in card.changes
    ]
    return " ".join([report.verdict, *([f"To change: {'; '.join(changes)}."] if changes else [])])


def _peak(card: Card) -> str:
    of = "" if card.capacity_bytes is None else f" <span>of {size(card.capacity_bytes)}</span>"
    place = [None if card.rank is None else f"rank {card.rank}", card.device, *peak_words(card, step_name)]
    return (
        f'<p class="card-peak"><b>{size(card.peak_bytes)}</b>{of}'
        f'<span class="muted">peak, {text(card.basis)} · {text(" · ".join(one for one in place if one))}</span></p>'
    )


def _bar(card: Card) -> str:
    """Return the bar of the peak up to the capacity, and below it what each stretch is."""
    found = stretches(card)
    total = sum(one.num_bytes for one in found)
    if not total:
        return ""
    pieces = "".join(
        f'<span class="piece{_kind(one)}" style="{_color(one)}flex-grow:{one.num_bytes / total:.5f}"></span>'
        for one in found
    )
    end = card.capacity_bytes
    is_over = end is not None and total > end
    mark = "" if end is None or not is_over else f'<i class="bar-end" style="left:{100 * end / total:.2f}%"></i>'
    keys = "".join(
        f'<li><span class="swatch{_kind(one)}" style="{_color(one)}"></span><b>{size(one.num_bytes)}</b> '
        f"{text(one.label)}</li>"
        for one in found
    )
    if mark:
        keys += f'<li><i class="bar-end key-end"></i><b>{size(end)}</b> capacity</li>'
    label = ", ".join(f"{format_bytes(one.num_bytes)} {one.label}" for one in found)
    return (
        f'<div class="card-bar"><div class="stacked-bar" role="img" aria-label="{text(label)}">{pieces}</div>'
        f'{mark}</div><ul class="card-keys">{keys}</ul>'
    )


def _kind(one: Stretch) -> str:
    hatched = one.category is not None and category_ink(one.category).hatched
    return f" {'hatched' if hatched else ''} of-{one.kind}"


def _color(one: Stretch) -> str:
    return "" if one.category is None else f"--color:{category_ink(one.category).color};"


def _changes(card: Card) -> str:
    if not card.changes:
        return '<p class="muted">Nothing was found that would lower the peak.</p>'
    knows = card.capacity_bytes is not None
    heads = ["What to change", "saves", "new peak", *(["fits"] if knows else []), "cost"]
    top = "".join(
        f'<th scope="col"{" class=number" if 0 < at < 3 else ""}>{text(head)}</th>' for at, head in enumerate(heads)
    )
    rows = "".join(_change(card, change, knows=knows) for change in card.changes)
    more = card.num_more_changes
    rest = f'<p class="muted more-changes">{more} more below, with their evidence.</p>' if more else ""
    return (
        f'<div class="scroll"><table class="card-changes"><thead><tr>{top}</tr></thead>'
        f"<tbody>{rows}</tbody></table></div>{rest}"
    )


def _change(card: Card, change: CardChange, *, knows: bool) -> str:
    where = change.where or {}
    has_line = where.get("file") is not None and where.get("line") is not None
    line = short_place(f"{where['file']}:{where['line']}") if has_line else ""
    place = f" <code>{text(line)}</code>" if line else ""
    kind, fits = _FITS[change.fits]
    basis = (
        ""
        if change.basis == card.basis or change.saves_bytes is None
        else f' <span class="muted">{text(change.basis)}</span>'
    )
    cells = [
        f'<th scope="row" title="{text(change.title)}">{text(change.name)}{place}</th>',
        f'<td class="number good">{size(change.saves_bytes)}</td>',
        f'<td class="number">{size(change.new_peak_bytes)}{basis}</td>',
        *([f'<td class="{kind}">{fits}</td>'] if knows else []),
        f'<td class="muted" title="{text(change.cost)}">{text(change.price)}</td>',
    ]
    return f'<tr data-change="{text(change.slug)}">{"".join(cells)}</tr>'


def _foot(card: Card) -> str:
    lines = []
    if card.not_seen is not None:
        lines.append(f"<p><span>not seen</span> {text(card.not_seen)}</p>")
    # This page is what such a command writes.
    if card.next_command is not None and "--html" not in card.next_command:
        lines.append(f"<p><span>next</span> <code>{text(card.next_command)}</code></p>")
    return f'<div class="card-foot muted">{"".join(lines)}</div>' if lines else ""
