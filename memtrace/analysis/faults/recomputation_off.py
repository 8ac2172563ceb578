"""Activation checkpointing that was in effect in earlier steps and is not any more.

In: `Case` with phases. Out: a `Finding`. Libraries checkpoint `if self.training`: after an evaluation that nobody
followed by `model.train()` they keep everything. That layers ran again in the backward of a step was seen in each step.
"""

from __future__ import annotations

import numpy as np

from memtrace.analysis.advice.case import Case
from memtrace.analysis.device.steps import has_high_water_marks, step_spans
from memtrace.analysis.results.report import Finding
from memtrace.schema.names import Category, Phase
from memtrace.store.columns import NULL, IntArray
from memtrace.units import format_bytes

_AS_HIGH = 0.98


def recomputation_off(case: Case) -> Finding | None:
    """Return from which step on nothing is computed again, where steps before did and peak lower."""
    peaks = {
        span.step: int(case.level[span.first : span.last + 1].max())
        for span in step_spans(case.history).values()
        if span.recorded and span.step >= 1
    }
    again, backward = _steps_with(case, Phase.RECOMPUTE), _steps_with(case, Phase.BACKWARD)
    on = sorted(step for step in peaks if step in again)
    off = sorted(step for step in peaks if step in backward and step > max(on, default=0))
    if not on or not off or any(step in backward and step not in again for step in peaks if step < max(on)):
        return None
    with_it, without = max(peaks[step] for step in on), max(peaks[step] for step in off)
    if without != case.peak_bytes or _AS_HIGH * without < with_it:
        return None
    first = _first_without(case, on[-1], off[0], without)
    since = f"from step {first} on" if first == on[-1] + 1 else f"in step {first}"
    return Finding(
        slug="recomputation-off",
        severity="warning",
        title=f"Activation checkpointing was in effect up to step {on[-1]} and is not {since}: "
        f"{format_bytes(with_it)} before, {format_bytes(without)} now",
        evidence={
            "last_step_with": on[-1],
            "first_step_without": first,
            "peak_with_bytes": with_it,
            "peak_without_bytes": without,
        },
        change="Call model.train() after each evaluation: checkpointing that asks self.training is off in eval() mode. "
        "If that is done, look for a flag of the model that switches it off.",
        cost="The recomputation that was meant: the forward of each layer runs twice.",
        saves_bytes=without - with_it,
        saves_ns=None,
        new_peak_bytes=with_it,
        rank=case.history.rank.rank,
        where=_line(case),
    )


def _first_without(case: Case, last_on: int, first_off: int, without: int) -> int:
    """Return the first step that comes as high as those without, by the marks of those that were not recorded."""
    steps = case.history.rank.table("steps")
    if not has_high_water_marks(case.history):
        return first_off
    between = (steps["step"] > last_on) & (steps["step"] < first_off) & (steps["high_water_bytes"] != NULL)
    columns = (steps[name][between].tolist() for name in ("step", "high_water_bytes"))
    first = first_off
    for step, mark in sorted(zip(*columns, strict=True), reverse=True):
        if mark < _AS_HIGH * without:
            break
        first = step
    return first


def _steps_with(case: Case, phase: Phase) -> set[int]:
    rank, phases = case.history.rank, case.history.rank.table("phases")
    return set(phases["step"][phases["phase"] == rank.string_id(phase.value)].tolist())


def _line(case: Case) -> dict[str, object] | None:
    """Return the line that calls the model: of what is kept at the peak, else of any forward that has lines."""
    kept = np.flatnonzero(case.in_phase(Phase.FORWARD) & case.is_category(Category.ACTIVATION))
    kept = kept[case.lifetimes.stack[kept] != NULL]
    live: IntArray = kept[np.isin(kept, case.live_at_peak)]
    rows = live if len(live) else kept
    return case.line_above(rows)
