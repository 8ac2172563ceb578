"""A table that never cuts a number: columns that have no room beside the others are drawn below them.

In: a table and the width of the terminal. Out: one table, or several under one another, each with the first column.
"""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console, ConsoleOptions, RenderResult
from rich.measure import Measurement
from rich.table import Column, Table

_LEAST_OF_TEXT = 16
"""Characters of a column of text beside which it is still read with ease."""


class FittingTable(Table):
    """A table whose columns of numbers are drawn whole at every width."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Draw the table, in parts if it is too wide."""
        for at, columns in enumerate(self._lines_of_columns(console, options)):
            if at:
                yield ""
            yield from self._part(columns)._drawn(console, options)

    def _drawn(self, console: Console, options: ConsoleOptions) -> RenderResult:
        return super().__rich_console__(console, options)

    def _lines_of_columns(self, console: Console, options: ConsoleOptions) -> list[list[Column]]:
        """Return the columns in as many groups as there must be, each beginning with the first column."""
        first, *others = self.columns
        lines, room = [[first]], 0
        for column in others:
            needed = self._needed(column, console, options)
            if len(lines[-1]) == 1:
                room = options.max_width - self._needed(first, console, options)
            if needed > room and len(lines[-1]) > 1:
                lines.append([first])
                room = options.max_width - self._needed(first, console, options)
            lines[-1].append(column)
            room -= needed
        return lines

    def _needed(self, column: Column, console: Console, options: ConsoleOptions) -> int:
        """Return how wide a column must be, with the gap that parts it from its neighbour."""
        anything = options.update(max_width=1000)
        widest = max(
            (Measurement.get(console, anything, cell).maximum for cell in (column.header, *column.cells)), default=0
        )
        if column.max_width is not None:
            widest = min(widest, column.max_width)
        return (widest if column.no_wrap else min(widest, _LEAST_OF_TEXT)) + self._gap()

    def _gap(self) -> int:
        _, right, _, left = self.padding
        return left + right + 1

    def _part(self, columns: Sequence[Column]) -> FittingTable:
        """Return a table of some of the columns and all rows."""
        part = FittingTable(
            box=self.box,
            pad_edge=False,
            show_edge=False,
            header_style=self.header_style,
            border_style=self.border_style,
        )
        part.columns, part.rows = list(columns), self.rows
        return part
