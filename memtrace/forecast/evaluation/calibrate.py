"""What runs of the user's own say of a cluster: by how much it is faster or slower than predicted, and memory too.

In: a table of layouts that ran, with what was measured. Out: `Calibration`. Every term of the time is scaled alike: one
step cannot tell kernels from links. Between runs of one published group (a model on a cluster) that brings the median
error from 3.9 to 2.9 % for llm-foundry, 4.1 to 2.8 % for BLOOM, 1.4 to 0.5 % for Megatron-LM's (benchmarks/
plan_published.py's runs, each predicted after another of its group).
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from memtrace.errors import MemtraceError
from memtrace.forecast.evaluation.columns import read_cells
from memtrace.forecast.evaluation.evaluate import evaluate_layouts
from memtrace.forecast.evaluation.layouts import given_layout
from memtrace.forecast.evaluation.measured import MEASURED, MEMORY, TIME, measured, without_measured
from memtrace.forecast.evaluation.table import read_table
from memtrace.forecast.results import Calibration

MOST = 20.0
"""A factor beyond which the table and the run cannot be of the same thing."""


def calibration(text: str, defaults: Mapping[str, Any]) -> Calibration:
    """Return what measured runs say.

    >>> text = "model,gpu,sequence,dp,zero,measured_tokens_per_second_per_gpu\\nllama-3-8b,h100-80gb,4096,8,3,5000\\n"
    >>> found = calibration(text, {})
    >>> 1 < found.time_factor < 2, found.memory_factor, found.runs
    (True, 1.0, 1)

    Raises:
        MemtraceError: the table is none, or a run measured nothing or what cannot be.
    """
    return calibration_of_rows(read_table(text, more=MEASURED), defaults)


def calibration_of_rows(rows: Sequence[Mapping[str, Any]], defaults: Mapping[str, Any]) -> Calibration:
    """Return what measured runs say, one row each: cells of a layout and what was measured.

    Raises:
        MemtraceError: a run measured nothing or what cannot be.
    """
    values = [read_cells(without_measured(row), number) for number, row in enumerate(rows, start=1)]
    given = [given_layout(one, number, defaults) for number, one in enumerate(values, start=1)]
    found = evaluate_layouts(given)
    times, memories = [], []
    for number, (row, one) in enumerate(zip(rows, found, strict=True), start=1):
        throughput, peak = (measured(row, name, number) for name in MEASURED)
        if throughput is None and peak is None:
            raise MemtraceError(f"row {number:,} has no measurement", hint=f"fill in {TIME} or {MEMORY}")
        times += [] if throughput is None else [one.tokens_per_second_per_gpu / throughput]
        memories += [] if peak is None else [peak / one.peak_bytes]
    time, memory = (_factor(values, what) for values, what in ((times, "time"), (memories, "memory")))
    return Calibration(time_factor=time, memory_factor=memory, runs=len(rows))


def _factor(ratios: list[float], what: str) -> float:
    factor = statistics.median(ratios) if ratios else 1.0
    if not 1 / MOST < factor < MOST:
        raise MemtraceError(
            f"the measured {what} is {factor:.3g} times what the layouts should need",
            hint="check that the table says how the run was laid out, and the units of what was measured",
        )
    return factor
