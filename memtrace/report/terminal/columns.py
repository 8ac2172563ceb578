"""Rows of cells as lines of text, set in by two, without drawing anything around them.

Other than the tables of a report these know no width: they are read by programs and pasted into issues as well.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from io import StringIO

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from memtrace.printable import clean

_GAP = 2


def aligned(rows: Sequence[Sequence[str]], *, text_columns: Collection[int] = (0,)) -> list[str]:
    """Return rows with aligned columns: those of text to the left, the others to the right.

    >>> aligned([("", "peak"), ("baseline", "1.00 GiB")])
    ['                peak', '  baseline  1.00 GiB']
    """
    cells = [[Text(clean(cell)) for cell in row] for row in rows]
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, _GAP, 0, 0))
    for at in range(len(cells[0])):
        table.add_column(justify="left" if at in text_columns else "right", no_wrap=True)
    for row in cells:
        table.add_row(*row)
    width = _GAP + sum(_GAP + max(cell.cell_len for cell in column) for column in zip(*cells, strict=True))
    console = Console(file=StringIO(), width=width, color_system=None, legacy_windows=False)
    with console.capture() as captured:
        console.print(Padding(table, (0, 0, 0, _GAP), expand=False))
    return [line.rstrip() for line in captured.get().splitlines()]
