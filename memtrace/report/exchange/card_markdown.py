"""The card as Markdown, for a pull request or an issue: a heading, a bar of text, a table of changes.

In: `Card`. Out: text. Names out of files stand in code spans, where neither markup nor a mention of somebody works.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from memtrace.analysis.results.card import Card, CardChange
from memtrace.report.drawing.card_bar import capacity_cell, cells, stretches
from memtrace.report.drawing.peak_words import peak_words
from memtrace.report.exchange.markdown import code, table
from memtrace.schema.frames import short_place
from memtrace.units import format_bytes

_BAR_CELLS = 48
_GLYPHS = "█▓▒░▚"
_OTHERS = {"others": "▪", "rounding": "▫", "idle": "▱", "outside": "═", "free": "·"}
_MARKS = {"died": "❌", "would-die": "❌", "ended": "✅"}
_FITS = {True: "✓", False: "✗", None: "?"}


def card_markdown(card: Card, *, title: str) -> str:
    """Return the card as a block of Markdown; `title` is what was read."""
    lines = [f"### {_MARKS.get(card.outcome, '▫')} memtrace: {code(card.headline)}", ""]
    if card.peak_bytes is not None:
        of = "" if card.capacity_bytes is None else f" of {format_bytes(card.capacity_bytes)}"
        lines += [f"**Peak {format_bytes(card.peak_bytes)}**{of} {card.basis}, {code(_place_of_peak(card))}", ""]
        lines += [*_bar(card), "", f"Limits: {code(card.limits)}", "", *_changes(card)]
    if card.not_seen is not None:
        lines += ["", f"Not seen: {code(card.not_seen)}"]
    lines += ["", f"Trace: {code(title)}"]
    return "\n".join(lines) + "\n"


def _place_of_peak(card: Card) -> str:
    rank = None if card.rank is None else f"rank {card.rank}"
    return ", ".join(one for one in (rank, card.device, *peak_words(card)) if one)


def _bar(card: Card) -> list[str]:
    """Return the bar in a block of code, and a table of its stretches."""
    found = stretches(card)
    glyphs = [
        _GLYPHS[at % len(_GLYPHS)] if one.category is not None else _OTHERS[one.kind] for at, one in enumerate(found)
    ]
    drawn = "".join(glyph * length for glyph, length in zip(glyphs, cells(found, _BAR_CELLS), strict=True))
    end = capacity_cell(card, found, _BAR_CELLS)
    drawn = drawn if end is None else f"{drawn[:end]}┃{drawn[end + 1 :]}"
    names = [f"{glyph} {format_bytes(one.num_bytes)} {one.label}" for glyph, one in zip(glyphs, found, strict=True)]
    return [code(drawn), "", *(f"- {code(name)}" for name in names)]


def _changes(card: Card) -> list[str]:
    if not card.changes:
        return ["Nothing was found that would lower the peak."]
    knows = card.capacity_bytes is not None
    heading = ("change", "where", "saves", "new peak", *(("fits",) if knows else ()), "cost")
    return table(heading, [_row(one, card, knows=knows) for one in card.changes])


def _row(change: CardChange, card: Card, *, knows: bool) -> tuple[str, ...]:
    other = f" ({change.basis} bytes)" if change.basis != card.basis and change.saves_bytes is not None else ""
    fits = (_FITS[change.fits],) if knows else ()
    saves, new = ("-" if one is None else format_bytes(one) for one in (change.saves_bytes, change.new_peak_bytes))
    return (code(change.name), code(_place(change.where)), saves, f"{new}{other}", *fits, code(change.price))


def _place(where: Mapping[str, Any] | None) -> str:
    if where is None or where.get("file") is None or where.get("line") is None:
        return ""
    return short_place(f"{where['file']}:{where['line']}")
