"""What `memtrace fit` found, as text and as the JSON document of the contract (`memtrace-fit`, version 1).

In: `Fit`. Out: text, or JSON. Every number shown is a field of it.
"""

from __future__ import annotations

from typing import Any

import orjson

from memtrace.forecast.fitting.results import Fit, FitRun
from memtrace.schema.names import Source
from memtrace.units import format_bytes

FORMAT = "memtrace-fit"
VERSION = 1


def fit_json(fit: Fit) -> bytes:
    """Return the document as indented UTF-8 JSON with a newline at its end."""
    document = {
        "format": FORMAT,
        "version": VERSION,
        "micro_batch": fit.micro_batch,
        "steady_state_peak_bytes": fit.steady_state_peak_bytes,
        "capacity_bytes": fit.capacity_bytes,
        "runs": [_run(run, fit.source) for run in fit.runs],
        "notes": list(fit.notes),
        "engine": fit.engine,
    }
    return orjson.dumps(document, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)


def _run(run: FitRun, source: str) -> dict[str, Any]:
    return {
        "micro_batch": run.micro_batch,
        "peak_bytes": run.measured.peak_bytes,
        "needed_bytes": run.measured.needed_bytes,
        "first_step_peak_bytes": run.measured.first_step_peak_bytes,
        "out_of_memory": run.measured.out_of_memory,
        "fits": run.fits,
        "source": source,
    }


def run_line(run: FitRun) -> str:
    """Return a line that says what came of one run."""
    if run.measured.out_of_memory:
        return f"micro-batch {run.micro_batch}: out of memory"
    return f"micro-batch {run.micro_batch}: {format_bytes(run.measured.needed_bytes)}, {_answer(run)}"


def fit_text(fit: Fit) -> str:
    """Return the answer and the runs that show it as text for a terminal."""
    capacity = format_bytes(fit.capacity_bytes)
    if fit.micro_batch is None:
        answer = f"No micro-batch fits in {capacity}."
    else:
        peak = format_bytes(fit.steady_state_peak_bytes)
        answer = f"The largest micro-batch that fits is {fit.micro_batch}: {peak} in the steady state, of {capacity}."
    if fit.source == Source.PREDICTED.value:
        answer += f" All of it is predicted (engine {fit.engine}): nothing ran on a GPU."
    heads = ["micro-batch", "steady-state peak", "needed", "first step", "fits"]
    rows = [heads, *(_cells(run) for run in sorted(fit.runs, key=lambda run: run.micro_batch))]
    widths = [max(len(row[at]) for row in rows) for at in range(len(heads))]
    lines = ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
    return "\n".join([answer, "", *(f"  {line}" for line in lines), *(["", *fit.notes] if fit.notes else [])]) + "\n"


def _cells(run: FitRun) -> list[str]:
    measured = run.measured
    if measured.out_of_memory:
        return [str(run.micro_batch), "out of memory", "", "", _answer(run)]
    return [
        str(run.micro_batch),
        format_bytes(measured.peak_bytes),
        format_bytes(measured.needed_bytes),
        format_bytes(measured.first_step_peak_bytes),
        _answer(run),
    ]


def _answer(run: FitRun) -> str:
    return "fits" if run.fits else "does not fit"
