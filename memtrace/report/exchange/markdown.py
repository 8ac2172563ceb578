"""Markdown for pull requests: tables, and code spans that hold whatever a file calls something."""

from __future__ import annotations

import re
from collections.abc import Sequence

from memtrace.report.drawing.markup import visible

_TICKS = re.compile("`+")


def table(heading: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Return the lines of a table; cells are Markdown."""
    return [f"| {' | '.join(row)} |" for row in (heading, ["---"] * len(heading), *rows)]


def code(text: str) -> str:
    """Return a text as a code span that holds in a table; nothing for no text.

    >>> code("a`b|c")
    '``a`b\\\\|c``'
    """
    shown = " ".join(str(visible(text)).split()).replace("|", "\\|")
    if not shown:
        return ""
    # A span ends at as many ticks as it began with: one more than the text has in a row.
    ticks = "`" * (1 + max(map(len, _TICKS.findall(shown)), default=0))
    space = " " if "`" in (shown[0], shown[-1]) else ""
    return f"{ticks}{space}{shown}{space}{ticks}"
