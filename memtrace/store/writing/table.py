"""A table as a file: CSV, or Parquet where pyarrow is there to write it.

In: a pandas frame. Out: the bytes of the file.
"""

from __future__ import annotations

import importlib.util
import io
import re

import pandas as pd

from memtrace.errors import MemtraceError
from memtrace.printable import escaped

_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")
_NUMBER = re.compile(r"[+-]?\d+(\.\d+)?", re.ASCII)


def table_bytes(frame: pd.DataFrame, kind: str) -> bytes:
    """Return a frame as "csv" or "parquet".

    Raises:
        MemtraceError: Parquet was asked for, and pyarrow is not installed.
    """
    if kind == "csv":
        return _for_spreadsheets(frame).to_csv(index=False, lineterminator="\n").encode("utf-8", "replace")
    if importlib.util.find_spec("pyarrow") is None:
        raise MemtraceError(
            "Parquet files are written by pyarrow, which is not installed", hint="pip install pyarrow, or --to csv"
        )
    buffer = io.BytesIO()
    frame.to_parquet(buffer, index=False)
    return buffer.getvalue()


def safe_cell(text: str) -> str:
    r"""Return a text that no spreadsheet takes for a formula and no terminal obeys.

    >>> safe_cell("=HYPERLINK(1)"), safe_cell("-5"), safe_cell("\tx"), safe_cell("a\x1b[31m"), safe_cell("layers.0")
    ("'=HYPERLINK(1)", '-5', "'\\tx", 'a\\x1b[31m', 'layers.0')
    """
    runs = text.startswith(_FORMULA_STARTS) and not _NUMBER.fullmatch(text)
    return ("'" if runs else "") + escaped(text)


def _for_spreadsheets(frame: pd.DataFrame) -> pd.DataFrame:
    """Return a frame whose texts are safe cells; numbers stay as they are."""
    columns = {}
    for name, column in frame.items():
        if isinstance(column.dtype, pd.CategoricalDtype):
            # Two names may become one, which categories must not.
            column = column.astype(object)
        if column.dtype == object or isinstance(column.dtype, pd.StringDtype):
            column = column.map(lambda value: safe_cell(value) if isinstance(value, str) else value)
        columns[name] = column
    safe: pd.DataFrame = pd.DataFrame(columns, columns=frame.columns)
    return safe
