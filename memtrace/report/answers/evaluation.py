"""Evaluated layouts as text and as the JSON document (`memtrace-plan-evaluation`, version 1).

In: `EvaluatedLayout`s in the order of the table, how they agree with what was measured. Out: text, or JSON with one
object a row. Every number is a field.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import orjson

from memtrace.forecast.results import Agreement, EvaluatedLayout
from memtrace.report.json.plain import plain
from memtrace.report.terminal.columns import aligned
from memtrace.units import format_bytes, format_ns

FORMAT = "memtrace-plan-evaluation"
VERSION = 1
_HEADINGS = ("row", "GPUs", "step", "tok/s/GPU", "MFU", "peak", "reserved")
_OF_MEASURED = ("measured tok/s/GPU", "error", "measured peak", "error")
_LAST = ("fits", "where the time goes")


def evaluation_json(rows: Sequence[EvaluatedLayout], agreed: Mapping[str, Agreement]) -> bytes:
    """Return the document as indented UTF-8 JSON with a newline at its end."""
    document = {"format": FORMAT, "version": VERSION, "agreement": plain(agreed), "rows": plain(rows)}
    return orjson.dumps(document, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)


def evaluation_text(rows: Sequence[EvaluatedLayout], agreed: Mapping[str, Agreement]) -> str:
    """Return a line a layout for a terminal, and a sentence for each quantity that was measured."""
    cells = [cells_of(number, row, rows) for number, row in enumerate(rows, start=1)]
    heads = headings(rows)
    lines = aligned([heads, *cells], text_columns=(0, len(heads) - 1))
    said = [agreement_sentence(name, one) for name, one in agreed.items()]
    return "\n".join([*(line.rstrip() for line in lines), *(["", *said] if said else [])]) + "\n"


def agreement_sentence(name: str, one: Agreement) -> str:
    """Return how well `name` (throughput, memory) agrees with what was measured, as a sentence."""
    order = "" if one.rank_correlation is None else f", rank correlation {one.rank_correlation:.2f}"
    worst = f"{one.worst_error:+.0%}" if one.worst_error <= 1 else f"{one.worst_error + 1:,.3g} times as much"
    return (
        f"Predicted {name} of {one.runs:,} measured layouts is off by {one.median_error:.1%} in the median, "
        f"{worst} at worst{order}."
    )


def headings(rows: Sequence[EvaluatedLayout]) -> tuple[str, ...]:
    """Return the headings of a table of layouts: with what was measured, where a row says so."""
    return _HEADINGS + (_OF_MEASURED if _has_measured(rows) else ()) + _LAST


def cells_of(number: int, row: EvaluatedLayout, rows: Sequence[EvaluatedLayout]) -> tuple[str, ...]:
    """Return the cells of one of `rows`, below `headings`."""
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
        *(_measured_cells(row) if _has_measured(rows) else ()),
        row.fits,
        ", ".join(told),
    )


def _has_measured(rows: Sequence[EvaluatedLayout]) -> bool:
    return any(
        row.measured_tokens_per_second_per_gpu is not None or row.measured_peak_bytes is not None for row in rows
    )


def _measured_cells(row: EvaluatedLayout) -> tuple[str, str, str, str]:
    throughput, peak = row.measured_tokens_per_second_per_gpu, row.measured_peak_bytes
    return (
        "" if throughput is None else f"{throughput:,.0f}",
        "" if throughput is None else f"{row.tokens_per_second_per_gpu / throughput - 1:+.1%}",
        "" if peak is None else format_bytes(peak),
        "" if peak is None else f"{row.peak_bytes / peak - 1:+.1%}",
    )
