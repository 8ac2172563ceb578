"""A table as a file: CSV, or Parquet where pyarrow is there to write it.

In: a pandas frame. Out: the bytes of the file.
"""

from __future__ import annotations

import importlib.util
import io

import pandas as pd

from memtrace.errors import MemtraceError


def table_bytes(frame: pd.DataFrame, kind: str) -> bytes:
    """Return a frame as "csv" or "parquet".

    Raises:
        MemtraceError: Parquet was asked for, and pyarrow is not installed.
    """
    if kind == "csv":
        return frame.to_csv(index=False, lineterminator="\n").encode("utf-8", "replace")
    if importlib.util.find_spec("pyarrow") is None:
        raise MemtraceError(
            "Parquet files are written by pyarrow, which is not installed", hint="pip install pyarrow, or --to csv"
        )
    buffer = io.BytesIO()
    frame.to_parquet(buffer, index=False)
    return buffer.getvalue()
