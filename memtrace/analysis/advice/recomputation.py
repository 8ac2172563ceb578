"""Activation checkpointing: activations that are dropped after forward and computed again in backward.

In: `Case` with module scopes. Out: `Finding`s. The regions and what each drops are those of `analysis.recompute`, here
as stretches of moments: a dropped activation is away from the end of its forward until backward first gives one back.

Source of the costs: Korthikanti et al., arXiv 2205.05198: selective 2.7 % more compute, full 30 to 40 %.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from memtrace.analysis.advice.case import Case, Cut
from memtrace.analysis.device.program_lines import place_of
from memtrace.analysis.results.report import Finding
from memtrace.analysis.what_if.recompute import FULL, SELECTIVE, forwards, innermost, is_dropped, is_projected
from memtrace.schema.names import Category, Phase
from memtrace.store.columns import NULL, IntArray
from memtrace.units import format_bytes

_COSTS = {
    SELECTIVE: "About 2.7 % more compute: what lies between the projections of attention is cheap to do again.",
    FULL: "30 to 40 % more compute and time: the forward of each layer runs twice.",
}
_CHANGES = {
    SELECTIVE: "Run the inner part of attention under torch.utils.checkpoint.checkpoint(..., use_reentrant=False), "
    "or as scaled_dot_product_attention, which computes its scores again by itself",
    FULL: "Run each layer under torch.utils.checkpoint.checkpoint(..., use_reentrant=False)",
}


def full_recomputation(case: Case) -> Finding | None:
    """Return the advice to compute the activations of each layer again in backward."""
    return _recomputation(case, FULL)


def selective_recomputation(case: Case) -> Finding | None:
    """Return the advice to compute what lies inside attention again in backward."""
    return _recomputation(case, SELECTIVE)


def _recomputation(case: Case, what: str) -> Finding | None:
    regions = list(_regions(case, what))
    if not regions or (what == FULL and _recomputes(case)):
        return None
    dropped = np.concatenate([rows for rows, *_ in regions])
    cut = Cut(
        start=np.concatenate([np.full(len(rows), start, np.int64) for rows, start, *_ in regions]),
        end=np.concatenate([np.full(len(rows), end, np.int64) for rows, _, end, _ in regions]),
        size_bytes=case.lifetimes.size_bytes[dropped],
        rows=dropped,
    )
    new_peak = case.new_peak(cut)
    if new_peak is None:
        return None
    inner = "layer" if what == FULL else "attention"
    live = [one for one in regions if one[1] <= case.peak_moment < one[2]]
    # A layer that ran in several forwards before one backward is one layer.
    number = len({module for *_, module in live})
    plural = "" if number == 1 else "s"
    times = f" of {len(live) / number:.0f} forwards" if len(live) > number else ""
    return Finding(
        slug="full-recomputation" if what == FULL else "selective-recomputation",
        severity="info",
        title=f"Activations inside {number} {inner}{plural}{times} could be computed again: "
        f"{format_bytes(case.at_peak(cut))} at the peak",
        evidence={"activations_dropped_at_peak_bytes": case.at_peak(cut), f"num_{inner}s_at_peak": number},
        change=f"{_CHANGES[what]}.",
        cost=_COSTS[what],
        saves_bytes=case.peak_bytes - new_peak,
        saves_ns=None,
        new_peak_bytes=new_peak,
        rank=case.history.rank.rank,
        where=place_of(case.history, np.concatenate([rows for rows, *_ in live])),
    )


def _recomputes(case: Case) -> bool:
    """Return whether layers ran again in the backward of any step: then it is known, and something switches it off."""
    rank = case.history.rank
    return bool((rank.table("phases")["phase"] == rank.string_id(Phase.RECOMPUTE.value)).any())


def _regions(case: Case, what: str) -> Iterator[tuple[IntArray, int, int, int]]:
    """Yield of each forward the allocations that it would drop, from when and until when, and the module."""
    rank, lifetimes, moments = case.history.rank, case.lifetimes, case.history.moments
    chosen = forwards(rank, what)
    # What evaluation keeps no backward could bring back.
    trained = ~case.in_phase(Phase.EVALUATION) & (case.start_ns != NULL)
    activations = np.flatnonzero(case.is_category(Category.ACTIVATION) & trained)
    if not len(chosen) or not len(activations):
        return
    times = case.start_ns[activations]
    region = innermost(rank, chosen, times)
    if what == SELECTIVE:
        region[is_projected(rank, times)] = -1
    ends = moments.at_times(rank.table("scopes")["end_ns"]) + 1
    order = np.lexsort((lifetimes.start[activations], region))
    order = order[region[order] >= 0]
    for members in np.split(order, np.flatnonzero(np.diff(region[order])) + 1):
        if not len(members):
            continue
        end, rows = int(ends[region[members[0]]]), activations[members]
        live = rows[lifetimes.in_use_end[rows] > end]
        dropped = live[is_dropped(lifetimes.size_bytes[live])]
        if len(dropped):
            module = int(rank.table("scopes")["module"][region[members[0]]])
            # They are made again before backward gives the first of them back.
            yield dropped, end, max(int(lifetimes.in_use_end[dropped].min()) - 1, end), module
