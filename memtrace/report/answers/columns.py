"""Rows of cells as lines for a terminal, set in by two, without drawing anything around them."""

from __future__ import annotations

from collections.abc import Collection, Sequence


def aligned(rows: Sequence[Sequence[str]], *, text_columns: Collection[int] = (0,)) -> list[str]:
    """Return rows with aligned columns: those of text to the left, the others to the right.

    >>> aligned([("", "peak"), ("baseline", "1.00 GiB")])
    ['                peak', '  baseline  1.00 GiB']
    """
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    return [
        "  "
        + "  ".join(
            cell.ljust(width) if at in text_columns else cell.rjust(width)
            for at, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]
