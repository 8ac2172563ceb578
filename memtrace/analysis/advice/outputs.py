"""Outputs of the micro-batch before that a variable still holds while the next forward runs: logits, loss.

In: `Case`. Out: a `Finding`. A loop that writes `logits = model(x)` keeps the old logits until the new ones are there:

    forward | backward | optimizer | forward           | backward
       l────────────────────────────────────────┐l'──── …             as it is
       l──────────────────────────────┘          l'──── …             with `del logits` at the end of the loop

What outlives the whole next micro-batch as well is no output that is replaced; where it grows, it is a leak.
"""

from __future__ import annotations

import itertools

import numpy as np

from memtrace.analysis.advice.case import Case, Cut
from memtrace.analysis.advice.passes import all_passes
from memtrace.analysis.places import place_of
from memtrace.analysis.results import Finding
from memtrace.schema.names import Category, Phase
from memtrace.store.columns import NULL, IntArray
from memtrace.units import format_bytes


def outputs_of_the_pass_before(case: Case) -> Finding | None:
    """Return the advice to let go of what the model returned before the next forward, where it is held until then."""
    held = _held(case)
    rows = np.concatenate([rows for rows, _ in held]) if held else np.zeros(0, np.int64)
    cuts = [
        Cut(
            start=np.full(len(some), forward, np.int64),
            end=case.lifetimes.in_use_end[some],
            size_bytes=case.lifetimes.size_bytes[some],
        )
        for some, forward in held
    ]
    new_peak = case.new_peak(*cuts)
    if new_peak is None:
        return None
    num_bytes = case.at_peak(*cuts)
    return Finding(
        slug="outputs-of-step-before",
        severity="warning",
        title=f"Outputs of the step before are still held in the next forward: {format_bytes(num_bytes)} at the peak",
        evidence={
            "held_at_peak_bytes": num_bytes,
            "num_held_at_peak": sum(_num_at_peak(case, cut) for cut in cuts),
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


def _num_at_peak(case: Case, cut: Cut) -> int:
    return int(np.count_nonzero((cut.start <= case.peak_moment) & (cut.end > case.peak_moment)))


def _end_of_steps(case: Case) -> int:
    """Return the moment after the last step: what is freed later, when the program ends, was not replaced."""
    ends = case.history.rank.table("steps")["end_ns"]
    return int(case.history.moments.at_times(ends[ends != NULL]).max(initial=-1)) + 1


def _held(case: Case) -> list[tuple[IntArray, int]]:
    """Return for each forward the allocations of the micro-batch before that are live in it, and its first moment."""
    passes, lifetimes = all_passes(case), case.lifetimes
    made = case.is_category(Category.ACTIVATION, Category.TEMPORARY, Category.UNKNOWN)
    # Optimizers carry a temporary over to their next step, which no loop can let go of.
    rows = np.flatnonzero(made & ~case.in_phase(Phase.OPTIMIZER) & ~lifetimes.is_initial)
    start, end = lifetimes.start[rows], lifetimes.in_use_end[rows]
    limits = [*(one.forward for one in passes[2:]), _end_of_steps(case)]
    found = []
    for (this, following), limit in zip(itertools.pairwise(passes), limits, strict=False):
        made_before = (start >= this.forward) & (start < following.forward)
        held = made_before & (end > following.forward) & (end <= limit)
        if held.any():
            found.append((rows[held], following.forward))
    return found
