"""The card in a terminal: twelve lines at most, whatever the width, readable without colour.

In: `Card`. Out: lines of text. The bar's stretches have glyphs of their own, which the line below it names.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import IO, Any

from rich.cells import cell_len
from rich.console import Group
from rich.text import Text

from memtrace.analysis.results.card import Card, CardChange
from memtrace.printable import clean
from memtrace.report.drawing.card_bar import Stretch, capacity_cell, cells, stretches
from memtrace.report.drawing.palette import category_ink
from memtrace.report.drawing.peak_words import peak_words
from memtrace.report.drawing.widths import whole_parts
from memtrace.report.terminal.cells import DASH, percent
from memtrace.report.terminal.console import print_to, terminal_width
from memtrace.schema.frames import short_place
from memtrace.units import format_bytes

WIDTH = 80
MAX_LINES = 12
_LABEL_WIDTH = 10
_LEAST_OF_A_FILE = 4
"""Characters of a file's name, after comma and blank, below which it tells nothing."""
_MAX_BAR = 60
_GAP = 2
"""Between two names below a bar."""
_NAME_WIDTH, _LEAST_NAME_WIDTH = 34, 28
"""Of a change."""
_FIGURES_WIDTH, _FITS_WIDTH = 8 + 10, 5
"""What it saves and the new peak; whether that fits."""
_LEAST_PRICE_WIDTH = 8
"""Below it a change has no price: what to do matters more."""
_HEADLINE_LINES = 2
_OWN_GLYPHS = "█▓▒░▚"
_GLYPHS = {"others": "▪", "rounding": "▫", "idle": "▱", "outside": "═", "free": "·"}
_END = "┃"
"""Where the device ends, in a bar that goes beyond it."""
_MARKS = {"died": ("✗", "bold red"), "would-die": ("✗", "bold red"), "ended": ("✓", "bold green")}


def print_card(card: Card, *, file: IO[str], with_command: bool = True) -> None:
    """Print a card to a file, without the next command where that stands elsewhere."""
    shown = card if with_command else replace(card, next_command=None)
    print_to(file, Group(*card_lines(shown, width=min(WIDTH, terminal_width(file)))))


def card_lines(card: Card, *, width: int = WIDTH) -> list[Text]:
    """Return the card, each line no longer than a width."""
    lines = _headline(card, width)
    if card.peak_bytes is not None:
        changes = _changes(card, width)
        room = MAX_LINES - len(lines) - len(changes) - 5
        limits = _limits(card.limits, width, num_lines=2 if room > 1 else 1)
        lines += [
            _labelled("peak", _peak(card, width - _LABEL_WIDTH)),
            *_bar(card, width, num_names=max(1, min(room - len(limits) + 1, 2))),
        ]
        lines += [*limits, *changes]
    if card.not_seen is not None:
        lines.append(
            _labelled("not seen", Text(whole_parts(clean(card.not_seen), width - _LABEL_WIDTH, cell_len), style="dim"))
        )
    if card.next_command is not None:
        lines.append(_labelled("next", Text(clean(card.next_command))))
    for line in lines:
        # A command that is cut off cannot be typed.
        if not line.plain.startswith("next"):
            line.truncate(width, overflow="ellipsis")
        else:
            line.overflow, line.no_wrap = "fold", False
    return lines


def _headline(card: Card, width: int) -> list[Text]:
    """Return what happened, in two lines at most."""
    mark, style = _MARKS.get(card.outcome, (DASH, "bold"))
    words, lines = clean(card.headline).split(), [""]
    for at, word in enumerate(words):
        is_longer = cell_len(lines[-1]) + cell_len(word) + 3 > width and lines[-1]
        if is_longer and len(lines) == _HEADLINE_LINES:
            lines[-1] = f"{lines[-1]} {' '.join(words[at:])}"
            break
        if is_longer:
            lines.append(word)
        else:
            lines[-1] = f"{lines[-1]} {word}".strip()
    return [Text(f"{mark if at == 0 else ' '} {line}", style=style) for at, line in enumerate(lines)]


def _labelled(label: str, body: Text) -> Text:
    return Text(f"{label:<{_LABEL_WIDTH}}", style="dim").append_text(body)


def _limits(sentence: str, width: int, *, num_lines: int) -> list[Text]:
    """Return what limits a run in so many lines; where they are too few, without the end of the sentence."""
    room, words = width - _LABEL_WIDTH, clean(sentence)
    parts = re.split(r"(?<=[;,]) ", words)
    for kept in range(len(parts), 0, -1):
        shown = " ".join(parts[:kept])
        shown = words if kept == len(parts) else f"{shown.rstrip(';,')}."
        lines = textwrap.wrap(shown, room, break_long_words=False, break_on_hyphens=False) or [""]
        if len(lines) <= num_lines and max(map(cell_len, lines)) <= room:
            break
    return [_labelled("limits" if at == 0 else "", Text(line)) for at, line in enumerate(lines[:num_lines])]


def _peak(card: Card, room: int) -> Text:
    """Return how high memory went, of how much, and when, as far as there is room for that."""
    text = Text(f"{format_bytes(card.peak_bytes)}", style="bold")
    whole = ""
    if card.capacity_bytes:
        whole = f" of {format_bytes(card.capacity_bytes)} ({percent((card.peak_bytes or 0) / card.capacity_bytes)})"
    text.append(f"{whole} {card.basis}  ", style="not bold")
    when = ", ".join(peak_words(card))
    who = "" if card.rank is None else f"rank {card.rank}, "
    place = clean(f"{who}{card.device}{': ' if when else ''}{when}")
    return text.append(whole_parts(place, room - text.cell_len, cell_len), style="not bold dim")


def _bar(card: Card, width: int, *, num_names: int) -> list[Text]:
    """Return the bar, with a mark where the device ends, and lines that name its stretches, as many as may be."""
    found = stretches(card)
    room = max(10, min(_MAX_BAR, width - _LABEL_WIDTH))
    end = capacity_cell(card, found, room)
    line = Text(" " * _LABEL_WIDTH)
    for at, (one, length) in enumerate(zip(found, cells(found, room), strict=True)):
        glyph, style = _glyph(one, at)
        line.append(glyph * length, style=style)
    if end is not None:
        at = _LABEL_WIDTH + end
        line = line[:at].append(_END, style="bold red").append_text(line[at + 1 :])
    return [line, *_legend(found, width, num_names)] if found else []


def _legend(found: Sequence[Stretch], width: int, num_lines: int) -> list[Text]:
    """Return the names of stretches in so many lines; those without room are left out whole."""
    indent = " " * (_LABEL_WIDTH if num_lines > 1 else 2)
    lines = [Text(indent)]
    for at, one in enumerate(found):
        glyph, style = _glyph(one, at)
        name = Text(f"{glyph} ", style=style).append(f"{format_bytes(one.num_bytes)} {clean(one.label)}  ", "not dim")
        needed = name.cell_len - _GAP + (0 if at == len(found) - 1 or len(lines) < num_lines else _GAP + 1)
        if lines[-1].cell_len + needed > width and lines[-1].plain.strip():
            if len(lines) == num_lines:
                lines[-1].append("…", style="dim")
                break
            lines.append(Text(indent))
        lines[-1].append_text(name)
    for line in lines:
        line.rstrip()
    return lines


def _glyph(one: Stretch, at: int) -> tuple[str, str]:
    if one.category is None:
        return _GLYPHS[one.kind], "dim"
    return _OWN_GLYPHS[at % len(_OWN_GLYPHS)], category_ink(one.category).color


def _changes(card: Card, width: int) -> list[Text]:
    """Return a line for each change under a line of headings."""
    if not card.changes:
        return [_labelled("change", Text("nothing was found that would lower the peak", style="dim"))]
    knows = card.capacity_bytes is not None
    prices = [_price(card, one) for one in card.changes]
    left = width - _LABEL_WIDTH - _FIGURES_WIDTH - (_FITS_WIDTH if knows else 0) - _GAP
    names = max(cell_len(clean(f"{one.name}{_place(one.where)}")) + 2 for one in card.changes)
    room = min(_NAME_WIDTH, names, max(_LEAST_NAME_WIDTH, left - max(map(cell_len, prices))))
    room = max(8, min(room, left))
    if left - room < _LEAST_PRICE_WIDTH:
        prices = [""] * len(prices)
    cost = "  cost" if any(prices) else ""
    head = Text(f"{'':<{room}}{'saves':>8}{'new peak':>10}{' fits' if knows else ''}{cost}", style="dim")
    rows = zip(card.changes, prices, strict=True)
    return [_labelled("change", head), *(_change(card, at, *row, room) for at, row in enumerate(rows, 1))]


def _price(card: Card, change: CardChange) -> str:
    """Return what a change costs, and what its figures are bytes of where that is not what the peak is of."""
    is_other = change.saves_bytes is not None and change.basis != card.basis
    return clean(change.price) + (f" ({change.basis})" if is_other else "")


def _change(card: Card, number: int, change: CardChange, price: str, room: int) -> Text:
    name = Text(clean(_named(change, room - 1)))
    name.truncate(room - 1, overflow="ellipsis", pad=True)
    text = Text(f"{number:>{_LABEL_WIDTH - 1}} ", style="dim").append_text(name).append(" ")
    text.append(f"{_size(change.saves_bytes):>8}", style="green").append(f"{_size(change.new_peak_bytes):>10}")
    if card.capacity_bytes is not None:
        mark, style = {True: ("✓", "green"), False: ("✗", "red"), None: ("?", "dim")}[change.fits]
        text.append(f"{mark:>{_FITS_WIDTH}}", style=style)
    return text.append(f"  {price}" if price else "", style="dim")


def _named(change: CardChange, room: int) -> str:
    """Return a change and its line; where there is little room, of the file's name its beginning, but the number."""
    place = _place(change.where)
    left = room - cell_len(change.name)
    if not place or cell_len(place) <= left:
        return f"{change.name}{place}"
    number = place[place.rindex(":") :]
    begins = place[: max(left - len(number) - 1, 0)]
    return f"{change.name}{begins}…{number}" if len(begins) > _LEAST_OF_A_FILE else change.name


def _place(where: Mapping[str, Any] | None) -> str:
    """Return the line that a change is about, with the name of its file only."""
    if where is None or where.get("file") is None or where.get("line") is None:
        return ""
    return ", " + short_place(f"{where['file']}:{where['line']}").rpartition("/")[2]


def _size(num_bytes: int | None) -> str:
    return DASH if num_bytes is None else format_bytes(num_bytes)
