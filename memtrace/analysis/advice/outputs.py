"""Outputs of the micro-batch before that a variable still holds while the next forward runs: logits, loss.

In: `Case`. Out: a `Finding`. A loop that writes `logits = model(x)` keeps the old logits until the new ones are there:

    forward | backward | optimizer | forward           | backward
       l────────────────────────────────────────┐l'──── …             as it is
       l──────────────────────────────┘          l'──── …             with `del logits` at the end of the loop

What outlives the whole next micro-batch as well is no output that is replaced; where it grows, it is a leak. Sets as
large as all parameters that the program makes between two forwards are none either: copied weights or gradients.
"""

from __future__ import annotations

import numpy as np

from memtrace.analysis.advice.case import Case
from memtrace.analysis.advice.passes import all_backwards, all_passes
from memtrace.analysis.advice.unused_graph import unused_rows
from memtrace.analysis.attribution.parameter_sets import in_sets, parameter_sizes
from memtrace.analysis.device.program_lines import place_of
from memtrace.analysis.events.alike import like_any
from memtrace.analysis.results.report import Finding
from memtrace.schema.names import Category, Phase
from memtrace.store.columns import NULL, IntArray
from memtrace.units import format_bytes


def outputs_of_the_pass_before(case: Case) -> Finding | None:
    """Return the advice to let go of what the model returned before the next forward, where it is held until then."""
    rows, starts = _held(case)
    # What a graph holds that no backward uses is told of as that.
    is_output = ~np.isin(rows, unused_rows(case))
    rows, starts = rows[is_output], starts[is_output]
    cut = case.cut(rows, start=starts)
    new_peak = case.new_peak(cut)
    if new_peak is None:
        return None
    num_bytes = case.at_peak(cut)
    return Finding(
        slug="outputs-of-step-before",
        severity="warning",
        title=f"Outputs of the step before are still held in the next forward: {format_bytes(num_bytes)} at the peak",
        evidence={
            "held_at_peak_bytes": num_bytes,
            "num_held_at_peak": case.num_at_peak(cut),
        },
        change="Let go of what the model returned, the loss, and what was made of them at the end of the loop's body "
        "(del logits, loss), or put the body into a function of its own.",
        cost="None.",
        saves_bytes=case.peak_bytes - new_peak,
        saves_ns=None,
        new_peak_bytes=new_peak,
        rank=case.history.rank.rank,
        where=place_of(case.history, rows),
    )


def _end_of_steps(case: Case) -> int:
    """Return the moment after the last step: what is freed later, when the program ends, was not replaced."""
    ends = case.history.rank.table("steps")["end_ns"]
    return int(case.history.moments.at_times(ends[ends != NULL]).max(initial=-1)) + 1


def _held(case: Case) -> tuple[IntArray, IntArray]:
    """Return the allocations of a micro-batch that are live in the next forward, and the first moment of that."""
    lifetimes = case.lifetimes
    forward = np.array([one.forward for one in all_passes(case)], np.int64)
    if len(forward) < 2:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    kinds = case.is_category(Category.ACTIVATION, Category.TEMPORARY, Category.UNKNOWN)
    # Optimizers carry a temporary over to their next step, which no loop can let go of.
    kinds &= ~lifetimes.is_initial | case.is_category(Category.ACTIVATION)
    rows = np.flatnonzero(kinds & ~case.in_phase(Phase.OPTIMIZER))
    following = np.searchsorted(forward, lifetimes.start[rows], side="right")
    rows, following = (one[(following > 0) & (following < len(forward))] for one in (rows, following))
    limit = np.append(forward[1:], _end_of_steps(case))[following]
    start, end = forward[following], lifetimes.in_use_end[rows]
    # What a later backward frees, it has used.
    held = (end > start) & (end <= limit) & ~all_backwards(case).are_around(end)
    between = ~case.in_phase(Phase.FORWARD, Phase.BACKWARD, Phase.RECOMPUTE)[rows]
    sets = in_sets(lifetimes.size_bytes[rows[between]], following[between], parameter_sizes(case.history.rank))
    held[np.flatnonzero(between)[sets]] = False
    # Nothing replaces what the last micro-batch holds to the end: it is told by what stood in its place before.
    last = np.flatnonzero((end > limit) & (following == len(forward) - 1))
    held[last] = like_any(lifetimes, rows[last], rows[held], needs_stack=False)
    return rows[held], start[held]
