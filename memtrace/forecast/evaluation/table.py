"""A table of layouts as text, CSV or JSON, as rows of cells.

In: the text of a file. Out: one mapping a row, in order. What is not a table of known columns is refused: by the name
of the column, or by the number of the row.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Collection, Iterable
from typing import Any

from memtrace.errors import MemtraceError
from memtrace.forecast.evaluation.columns import COLUMNS

MAX_BYTES = 64 * 1024**2
MAX_ROWS = 200_000
DELIMITERS = (",", ";", "\t")


def read_table(text: str, more: Collection[str] = ()) -> list[dict[str, Any]]:
    """Return the rows of a table: JSON where it begins like a list or an object, CSV otherwise.

    Columns are those of a layout, and `more`.

    >>> read_table("model,dp\\ngpt2,8\\n"), read_table('[{"model": "gpt2", "dp": 8}]')
    ([{'model': 'gpt2', 'dp': '8'}], [{'model': 'gpt2', 'dp': 8}])

    Raises:
        MemtraceError: it is no table of layouts.
    """
    text = text.removeprefix("\ufeff")
    rows = _json_rows(text, more) if text.lstrip()[:1] in ("[", "{") else _csv_rows(text, more)
    if not rows:
        raise MemtraceError("the table has no rows", hint="a line of column names, and a line for each layout")
    if len(rows) > MAX_ROWS:
        raise MemtraceError(f"the table has {len(rows):,} rows", hint=f"at most {MAX_ROWS:,} are evaluated at once")
    return rows


def _csv_rows(text: str, more: Collection[str]) -> list[dict[str, Any]]:
    head = text.partition("\n")[0]
    # Spreadsheets write semicolons where a comma stands in numbers.
    delimiter = max(DELIMITERS, key=head.count)
    lines = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        names = [name.strip() for name in next(lines, [])]
        _check_names(names, more)
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise MemtraceError(f"the column {twice[0]} is there twice")
        rows: list[dict[str, Any]] = []
        for line in lines:
            if not any(cell.strip() for cell in line):
                continue
            if len(line) > len(names):
                raise MemtraceError(f"row {len(rows) + 1:,} has {len(line)} cells for {len(names)} columns")
            # Cells that are left off at the end of a line are empty.
            rows.append(dict(zip(names, line, strict=False)))
    except csv.Error as error:
        raise MemtraceError(f"the table cannot be read as CSV: {error}"[:200]) from None
    return rows


def _json_rows(text: str, more: Collection[str]) -> list[dict[str, Any]]:
    try:
        found = json.loads(text, object_pairs_hook=_object)
    except (ValueError, RecursionError) as error:
        raise MemtraceError(f"the table cannot be read as JSON: {error}"[:200]) from None
    if isinstance(found, dict):
        found = found.get("rows", [found])
    if not isinstance(found, list):
        raise MemtraceError("the rows of the table are not a list")
    for number, row in enumerate(found, start=1):
        if not isinstance(row, dict):
            raise MemtraceError(f"row {number:,} is no object of columns", hint='write {"model": "gpt2", "dp": 8}')
        _check_names(row, more, f"row {number:,}: ")
    return found


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return a JSON object, of which no name may be there twice, as no column of CSV may."""
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise MemtraceError(f"the column {name[:60]} is there twice in one row")
        found[name] = value
    return found


def _check_names(names: Iterable[str], more: Collection[str], where: str = "") -> None:
    unknown = [name for name in names if name not in COLUMNS and name not in more]
    if unknown:
        raise MemtraceError(
            f"{where}there is no column {', '.join(repr(name[:60]) for name in unknown[:5])}",
            hint=f"columns are {', '.join((*COLUMNS, *more))}",
        )
