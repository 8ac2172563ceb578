"""The card as a picture: SVG that stands alone, drawn here and by no library, for a README or a pull request.

In: `Card`. Out: text. Nothing in it is loaded from elsewhere; names out of files are escaped.
"""

from __future__ import annotations

import itertools
import textwrap
from collections.abc import Iterator

from memtrace.analysis.results.card import Card, CardChange
from memtrace.printable import in_page
from memtrace.report.drawing.card_bar import Stretch, capacity_cell, cells, stretches
from memtrace.report.drawing.markup import escaped_text
from memtrace.report.drawing.palette import category_ink
from memtrace.report.drawing.peak_words import peak_words
from memtrace.report.drawing.widths import columns, whole_parts
from memtrace.schema.frames import short_place
from memtrace.units import format_bytes

WIDTH = 860
_MARGIN, _LINE, _TEXT_COLUMNS = 28, 24, 88
_BAR_WIDTH, _BAR_HEIGHT = WIDTH - 2 * _MARGIN, 26
_COLORS = {"others": "#b7bdc5", "rounding": "#c9ced4", "idle": "#dde1e6", "outside": "#5c6570", "free": "#f1f3f5"}
_COLUMNS = (0, 400, 500, 600, 650)
"""Where the columns of the changes begin."""
_STYLE = (
    "text{font:14px ui-sans-serif,system-ui,'Segoe UI',sans-serif;fill:#191d23}"
    ".b{font-weight:600;font-size:17px}.m{fill:#5c6570}.c{font-family:ui-monospace,monospace;font-size:13px}"
    ".bad{fill:#b3261e}.good{fill:#1c7c54}"
)


class _Drawing:
    """Elements so far, and how far down they reach."""

    def __init__(self) -> None:
        self.elements: list[str] = []
        self.y = _MARGIN + 6

    def text(self, x: int, content: str, *, kind: str = "", down: int = 0) -> None:
        """Add a line of text, and go down after it."""
        attribute = f' class="{kind}"' if kind else ""
        self.elements.append(f'<text x="{x}" y="{self.y}"{attribute}>{escaped_text(content)}</text>')
        self.y += down

    def box(self, x: float, y: float, width: float, height: float, fill: str) -> None:
        """Add a box."""
        self.elements.append(f'<rect x="{x:.2f}" y="{y:.2f}" width="{width:.2f}" height="{height:.2f}" fill="{fill}"/>')


def card_svg(card: Card) -> str:
    """Return the card as an SVG document."""
    drawing = _Drawing()
    kind = {"died": "b bad", "would-die": "b bad", "ended": "b"}.get(card.outcome, "b")
    for line in textwrap.wrap(card.headline, _TEXT_COLUMNS, max_lines=3, placeholder=" …"):
        drawing.text(_MARGIN, _cut(line, _TEXT_COLUMNS), kind=kind, down=_LINE)
    if card.peak_bytes is not None:
        drawing.text(_MARGIN, _cut(_peak(card), _TEXT_COLUMNS + 14), down=14)
        _draw_bar(drawing, card)
        drawing.text(_MARGIN, _cut(card.limits, _TEXT_COLUMNS + 14), down=_LINE + 6)
        _draw_changes(drawing, card)
    if card.not_seen is not None:
        drawing.text(
            _MARGIN,
            _cut(whole_parts(f"Not seen: {card.not_seen}", _TEXT_COLUMNS + 14), _TEXT_COLUMNS + 14),
            kind="m",
            down=_LINE,
        )
    if card.next_command is not None:
        drawing.text(_MARGIN, _cut(f"$ {card.next_command}", _TEXT_COLUMNS + 10), kind="c", down=_LINE)
    height = drawing.y + 4
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" '
        f'role="img" aria-label="{escaped_text(card.headline)}">\n<style>{_STYLE}</style>\n'
        f'<rect x="0.5" y="0.5" width="{WIDTH - 1}" height="{height - 1}" rx="10" fill="#ffffff" stroke="#d5d9de"/>\n'
        + "\n".join(drawing.elements)
        + "\n</svg>\n"
    )


def _peak(card: Card) -> str:
    of = "" if card.capacity_bytes is None else f" of {format_bytes(card.capacity_bytes)}"
    when = ", ".join(peak_words(card))
    rank = "" if card.rank is None else f"rank {card.rank}, "
    return f"Peak {format_bytes(card.peak_bytes)}{of} {card.basis}, {rank}{card.device}{': ' if when else ''}{when}"


def _draw_bar(drawing: _Drawing, card: Card) -> None:
    """Draw the bar, and below it what each stretch is."""
    found = stretches(card)
    lengths = cells(found, _BAR_WIDTH)
    x = _MARGIN
    for one, length in zip(found, lengths, strict=True):
        drawing.box(x, drawing.y, length, _BAR_HEIGHT, _fill(one))
        x += length
    end = capacity_cell(card, found, _BAR_WIDTH)
    if end is not None:
        drawing.box(_MARGIN + end - 1, drawing.y - 4, 3, _BAR_HEIGHT + 8, "#b3261e")
    drawing.y += _BAR_HEIGHT + 22
    x = _MARGIN
    for one in found:
        label = _cut(f"{format_bytes(one.num_bytes)} {one.label}", _TEXT_COLUMNS)
        width = 22 + 7 * columns(label) + 14
        if x + width > WIDTH - _MARGIN and x > _MARGIN:
            x, drawing.y = _MARGIN, drawing.y + _LINE - 2
        drawing.box(x, drawing.y - 11, 12, 12, _fill(one))
        drawing.text(x + 18, label, kind="m")
        x += width
    drawing.y += _LINE + 4


def _fill(one: Stretch) -> str:
    return _COLORS[one.kind] if one.category is None else category_ink(one.category).color


def _draw_changes(drawing: _Drawing, card: Card) -> None:
    """Draw a row for each change."""
    if not card.changes:
        drawing.text(_MARGIN, "Nothing was found that would lower the peak.", kind="m", down=_LINE)
        return
    headings = ("change", "saves", "new peak", "fits" if card.capacity_bytes is not None else "", "cost")
    for offset, heading in zip(_COLUMNS, headings, strict=True):
        drawing.text(_MARGIN + offset, heading, kind="m")
    drawing.y += _LINE - 2
    for number, change in enumerate(card.changes, 1):
        for offset, (content, kind) in zip(_COLUMNS, _row(card, number, change), strict=True):
            drawing.text(_MARGIN + offset, content, kind=kind)
        drawing.y += _LINE
    drawing.y += 4


def _row(card: Card, number: int, change: CardChange) -> Iterator[tuple[str, str]]:
    where = change.where or {}
    known = where.get("file") is not None and where.get("line") is not None
    place = f", {short_place(str(where['file']) + ':' + str(where['line']))}" if known else ""
    yield _cut(f"{number}. {change.name}{place}", 54), ""
    yield ("-" if change.saves_bytes is None else format_bytes(change.saves_bytes)), "good"
    yield ("-" if change.new_peak_bytes is None else format_bytes(change.new_peak_bytes)), ""
    fits = {True: ("✓", "good"), False: ("✗", "bad"), None: ("?", "m")}[change.fits]
    yield fits if card.capacity_bytes is not None else ("", "")
    is_other = change.saves_bytes is not None and change.basis != card.basis
    yield _cut(change.price + (f" ({change.basis} bytes)" if is_other else ""), 22), "m"


def _cut(text: str, length: int) -> str:
    """Return a text of at most so many columns.

    >>> _cut("abcdef", 4), _cut("abc", 4), _cut("層層層", 4)
    ('abc…', 'abc', '層…')
    """
    # Escapes are longer than what they stand for.
    text = in_page(text)
    if columns(text) <= length:
        return text
    ends = itertools.accumulate(map(columns, text))
    kept = sum(1 for _ in itertools.takewhile(lambda end: end < length, ends))
    return f"{text[:kept].rstrip()}…"
