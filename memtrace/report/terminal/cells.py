"""Cells, tables and names of the report in a terminal: what every section of it is put together from.

Names come out of files and may hold terminal escapes, so every one of them passes `clean`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich import box
from rich.console import RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from memtrace.analysis.results.report import Note
from memtrace.printable import clean
from memtrace.report.drawing.palette import CATEGORIES
from memtrace.report.terminal.fitting_table import FittingTable
from memtrace.schema.names import category_words
from memtrace.units import format_bytes

DASH = "-"
_BAR_WIDTH = 20
_NAME_WIDTH = 24


def section(title: str, body: RenderableType) -> list[RenderableType]:
    """Return an empty line, a heading, and a body that is set in from it."""
    return ["", Text(clean(title), style="bold cyan"), Padding(body, (0, 0, 0, 2))]


def calm_table(*columns: str, wide: str | None = None) -> Table:
    """Return a calm table: the first column is text, the others are numbers, `wide` is a last column of text.

    What has no room is drawn below, so that no number is ever cut.
    """
    table = FittingTable(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, header_style="dim", border_style="dim")
    table.add_column(columns[0], no_wrap=True, overflow="ellipsis", max_width=_NAME_WIDTH)
    for name in columns[1:]:
        table.add_column(name, justify="right", no_wrap=True)
    if wide is not None:
        table.add_column(wide, overflow="fold")
    return table


def filled_table(columns: Sequence[str], rows: Sequence[Sequence[str | Text]], *, wide: str) -> Table:
    """Return a calm table of rows, without the columns of numbers that no row has one in."""
    kept = [at for at in range(1, len(columns)) if any(str(row[at]) not in ("", DASH) for row in rows)]
    table = calm_table(columns[0], *(columns[at] for at in kept), wide=wide)
    for row in rows:
        table.add_row(row[0], *(row[at] for at in kept), row[-1])
    return table


def pairs(rows: Iterable[tuple[str, RenderableType]]) -> Table:
    """Return names and what they stand for, without lines or a heading."""
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(no_wrap=True, style="dim")
    table.add_column(overflow="fold")
    for name, value in rows:
        table.add_row(name, value)
    return table


def size(num_bytes: int | None) -> str:
    """Return bytes for a cell, a dash for what was not recorded."""
    return DASH if num_bytes is None else format_bytes(num_bytes)


def signed_size(num_bytes: int) -> str:
    """Return a difference with its sign.

    >>> signed_size(2048), signed_size(-2048), signed_size(0)
    ('+2.00 KiB', '-2.00 KiB', '0 B')
    """
    return f"+{format_bytes(num_bytes)}" if num_bytes > 0 else format_bytes(num_bytes)


def percent(share: float) -> str:
    """Return a share with one decimal.

    >>> percent(0.5), percent(0.00001)
    ('50.0 %', '<0.1 %')
    """
    return "<0.1 %" if 0 < share < 0.001 else f"{100 * share:.1f} %"


def bar(share: float, category: str) -> Text:
    """Return a bar as long as a share, in the colour of a category."""
    drawn = CATEGORIES.get(category)
    return Text("━" * round(_BAR_WIDTH * share), style=drawn.color if drawn else "white")


def category_name(name: str) -> str:
    """Return what a category is called on screen."""
    return clean(category_words(name))


def notes(found: Iterable[Note]) -> Table:
    """Return messages with their short names."""
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for note in found:
        text = Text(clean(note.message))
        if note.count > 1:
            text.append(f" ({note.count} times)", style="dim")
        table.add_row(DASH, text.append(f" [{clean(note.slug)}]", style="dim"))
    return table
