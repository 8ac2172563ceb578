"""Evaluated layouts as text and as the JSON document (`memtrace-plan-evaluation`, version 1).

In: `EvaluatedLayout`s in the order of the table. Out: text, or JSON with one object a row. Every number is a field.
"""

from __future__ import annotations

from collections.abc import Sequence

import orjson

from memtrace.forecast.results import EvaluatedLayout
from memtrace.report.json.plain import plain
from memtrace.report.terminal.columns import aligned
from memtrace.units import format_bytes, format_ns

FORMAT = "memtrace-plan-evaluation"
VERSION = 1
HEADINGS = ("row", "GPUs", "step", "tok/s/GPU", "MFU", "peak", "reserved", "fits", "where the time goes")


def evaluation_json(rows: Sequence[EvaluatedLayout]) -> bytes:
    """Return the document as indented UTF-8 JSON with a newline at its end."""
    document = {"format": FORMAT, "version": VERSION, "rows": plain(rows)}
    return orjson.dumps(document, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)


def evaluation_text(rows: Sequence[EvaluatedLayout]) -> str:
    """Return a line a layout for a terminal."""
    cells = [_cells(number, row) for number, row in enumerate(rows, start=1)]
    lines = aligned([HEADINGS, *cells], text_columns=(0, len(HEADINGS) - 1))
    return "\n".join(line.rstrip() for line in lines) + "\n"


def _cells(number: int, row: EvaluatedLayout) -> tuple[str, ...]:
    shares = {name: seconds / row.step_seconds for name, seconds in row.time_seconds.items()}
    told = [f"{name} {share:.0%}" for name, share in shares.items() if share >= 0.005]
    return (
        str(number),
        str(row.gpus),
        format_ns(round(row.step_seconds * 1e9)),
        f"{row.tokens_per_second_per_gpu:,.0f}",
        f"{row.mfu:.1%}",
        format_bytes(row.peak_bytes),
        format_bytes(row.reserved_bytes),
        row.fits,
        ", ".join(told),
    )
