"""A step that alone makes the peak by what it makes of a batch like any other: pairs of objects, nodes of a graph.

In: `Case` with steps. Out: a `Finding`. The step makes as many allocations as the others do, the same calls in the same
order, and what they make is larger. So it is no other work, as a sample or an evaluation now and then would be:

    step      5    6    7
    pairs     o    OOOOOOO   o          the 31st allocation of each step
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from memtrace.analysis.advice.case import Case
from memtrace.analysis.device.program_lines import place_of
from memtrace.analysis.device.steps import StepSpan, step_spans
from memtrace.analysis.results.report import Finding
from memtrace.schema.names import Phase
from memtrace.store.columns import NULL, IntArray
from memtrace.units import format_bytes

_LEAST_OTHERS = 3
_HIGHER_TIMES = 1.5
_ALIKE = 0.1
"""By so small a part of their allocations steps that do the same may differ: kernels work otherwise on larger data."""
_OWN_SHARE = 0.9
"""The part of the excess that the step has to have made itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Step:
    """A step and what it makes."""

    span: StepSpan
    rows: IntArray
    peak_bytes: int


def odd_step(case: Case) -> Finding | None:
    """Return the step that comes higher than the others although it does the same, with the line that makes it so."""
    steps = [_step(case, span) for span in step_spans(case.history).values() if span.recorded and span.step >= 1]
    own = next((one for one in steps if one.peak_bytes == case.peak_bytes), None)
    # The first step makes states and workspaces besides.
    if own is None or own.span.step == 1 or _is_evaluated(case):
        return None
    others = [one for one in steps if one is not own and one.span.step > 1]
    if len(others) < _LEAST_OTHERS:
        return None
    usual = int(np.median([len(one.rows) for one in others]))
    second = max(one.peak_bytes for one in others)
    live = own.rows[np.isin(own.rows, case.live_at_peak)]
    made_bytes = int(case.lifetimes.size_bytes[live].sum())
    does_the_same = abs(len(own.rows) - usual) <= _ALIKE * usual
    excess = case.peak_bytes - second
    if case.peak_bytes < _HIGHER_TIMES * second or not does_the_same or made_bytes < _OWN_SHARE * excess:
        return None
    largest = int(live[np.argmax(case.lifetimes.size_bytes[live])])
    num_bytes = int(case.lifetimes.size_bytes[largest])
    return Finding(
        slug="odd-batch",
        severity="warning",
        title=f"Step {own.span.step} alone makes the peak, {format_bytes(excess)} above all others: it does what they "
        f"do, and makes a block of {format_bytes(num_bytes)}",
        evidence={
            "step": own.span.step,
            "highest_other_peak_bytes": second,
            "largest_block_bytes": num_bytes,
            "num_allocations": len(own.rows),
            "median_num_allocations": usual,
            "num_steps": len(steps),
        },
        change="What is made there grows with the data of a batch and not with its shape (pairs of objects, nodes, "
        "tokens): bound how many there may be, or work on some at a time.",
        cost="None where work is parted; a bound leaves data out.",
        saves_bytes=excess,
        saves_ns=None,
        new_peak_bytes=second,
        rank=case.history.rank.rank,
        where=_line_of(case, own, others, largest),
    )


def _step(case: Case, span: StepSpan) -> _Step:
    lifetimes = case.lifetimes
    rows = np.flatnonzero((lifetimes.start >= span.first) & (lifetimes.start <= span.last) & ~lifetimes.is_initial)
    rows = rows[np.argsort(lifetimes.start[rows], kind="stable")]
    return _Step(span=span, rows=rows, peak_bytes=int(case.level[span.first : span.last + 1].max()))


def _is_evaluated(case: Case) -> bool:
    evaluated = case.in_phase(Phase.EVALUATION)[case.live_at_peak]
    return bool(evaluated.any())


def _line_of(case: Case, own: _Step, others: list[_Step], largest: int) -> dict[str, object] | None:
    """Return the line that makes the largest block; without frames, that of the same allocation of another step.

    It is the same if it comes as late among those of its phase, and the phase has as many.
    """
    stacks, phase = case.lifetimes.stack, _phases(case)
    in_phase = own.rows[phase[own.rows] == phase[largest]]
    at = int(np.flatnonzero(in_phase == largest)[0])
    of_others = (one.rows[phase[one.rows] == phase[largest]] for one in others)
    same = [int(rows[at]) for rows in of_others if len(rows) == len(in_phase)]
    known = next((row for row in (largest, *same) if stacks[row] != NULL), largest)
    return place_of(case.history, np.array([known]))


def _phases(case: Case) -> IntArray:
    """Return the phase of each allocation, by its name; null in none: row -1 reads the entry at the end."""
    names: IntArray = np.append(case.history.rank.table("phases")["phase"], NULL)
    return names[case.phase_row]
