"""What autograd keeps for a backward that never comes: losses that are only looked at, outputs that no loss uses.

In: `Case` with phases, and graphs among what was found to keep memory. Out: a `Finding`.

    forward       backward      optimizer   forward
    a──────────────┘                                     of the loss: freed by the backward
       b────────────────────────────────────────┘        of a loss beside it, kept by a list: freed with the list

At a step's end, graphs that variables lead to were walked; what still has its saved tensors then, no backward has gone
through. It is unused where it lived through a whole backward and something other than a backward freed it: that of the
next loss may yet go through it. A graph that backward was told to keep (`retain_graph`) is none of these: that backward
needed it.

Without a graph, what a module made is gone when its outermost call is over, but for the output, which whoever called it
may need until the backward.
"""

from __future__ import annotations

from collections import Counter

import numpy as np

from memtrace.analysis.advice.case import BoolArray, Case
from memtrace.analysis.advice.passes import all_backwards
from memtrace.analysis.device.keepers import KeptAllocations
from memtrace.analysis.events.alike import like_any
from memtrace.analysis.results.report import Finding
from memtrace.analysis.sentences.keepers import kept_by
from memtrace.schema.names import Phase
from memtrace.store.columns import NULL, IntArray
from memtrace.units import format_bytes


def unused_graph(case: Case) -> Finding | None:
    """Return the advice to build no graph where no backward follows, where such graphs are there at the peak."""
    kept = case.kept
    if kept is None:
        return None
    rows, start = _unused(case, kept)
    older = _left_by_steps_before(case, rows)
    cut = case.cut(np.append(rows, older), start=np.append(start, case.lifetimes.start[older]))
    new_peak, num_bytes = case.new_peak(cut), case.at_peak(cut)
    keeper = kept.largest(np.flatnonzero(_are_in_graphs(kept) & np.isin(kept.allocation, rows)))
    if new_peak is None or keeper is None:
        return None
    return Finding(
        slug="unused-graph",
        severity="warning",
        title=f"Autograd keeps {format_bytes(num_bytes)} at the peak for a backward that never comes: {keeper.text}",
        evidence={
            "unused_at_peak_bytes": num_bytes,
            "num_unused_at_peak": case.num_at_peak(cut),
            **kept_by(keeper),
        },
        change="Compute what no backward is called on under torch.no_grad(), or keep it without its graph "
        "(total += loss.detach(), or loss.item() for a number).",
        cost="None, where it is known before a forward that no backward follows; where it is not (the best of "
        "several), another forward.",
        saves_bytes=case.peak_bytes - new_peak,
        saves_ns=None,
        new_peak_bytes=new_peak,
        rank=case.history.rank.rank,
        where=keeper.fed_at or case.line_above(rows[np.isin(rows, case.live_at_peak)]),
    )


def unused_rows(case: Case) -> IntArray:
    """Return the allocations that graphs keep and no backward uses."""
    return np.zeros(0, np.int64) if case.kept is None else _unused(case, case.kept)[0]


def _unused(case: Case, kept: KeptAllocations) -> tuple[IntArray, IntArray]:
    """Return the allocations that graphs keep and no backward uses, and from when on each would not be there."""
    named = np.unique(kept.allocation[_are_in_graphs(kept)])
    candidates = case.by_start[_may_be_unused(case, kept)[case.by_start]]
    rows = candidates[np.isin(candidates, named) | like_any(case.lifetimes, candidates, named)]
    backwards, lifetimes = all_backwards(case), case.lifetimes
    if backwards.are_nested:
        # What one inside another goes through was not looked at when it began.
        return rows[:0], rows[:0]
    following, end = np.searchsorted(backwards.begin, lifetimes.start[rows]), lifetimes.in_use_end[rows]
    num_lived_through = np.searchsorted(backwards.end, end) - following
    stops = np.array([epoch.stop for epoch in case.history.moments.epochs], np.int64)
    is_open = np.isin(end, [*stops.tolist(), len(case.history.moments)])
    is_seen = (num_lived_through > 0) & ~is_open & ~backwards.are_around(end)
    chosen = is_seen | _goes_as_seen(case, rows, num_lived_through, is_open=is_open, is_seen=is_seen)
    return rows[chosen], _served(case, rows[chosen], backwards.begin_ns[following[chosen]])


def _goes_as_seen(
    case: Case, rows: IntArray, num_lived_through: IntArray, *, is_open: BoolArray, is_seen: BoolArray
) -> BoolArray:
    """Return which of what is there to the end of a stretch of the recording will go unused like what was seen to.

    A backward may yet use it, unless its like were not used. What has lived through more backwards by then than any of
    those is kept for something, and so may be what is like it.
    """
    may_go = is_open & (num_lived_through > 0)
    most = int(num_lived_through[is_seen].max(initial=0))
    stays = rows[is_open & (num_lived_through > most)]
    return np.asarray(may_go & like_any(case.lifetimes, rows, rows[is_seen]) & ~like_any(case.lifetimes, rows, stays))


def _served(case: Case, rows: IntArray, backward_ns: IntArray) -> IntArray:
    """Return the moment from which on nothing reads each of some allocations, in order of time, but a backward: when
    the outermost call that made it is over, or a backward begins."""
    scopes, moments, born_ns = case.history.rank.table("scopes"), case.history.moments, case.start_ns[rows]
    call = case.history.scopes.outermost(born_ns, backward_ns)
    is_output = np.zeros(len(rows), np.bool_)
    is_output[len(rows) - 1 - np.unique(call[::-1], return_index=True)[1]] = True
    served_ns = np.where((call >= 0) & ~is_output, np.append(scopes["end_ns"], NULL)[call], backward_ns)
    return moments.at_times(served_ns) + 1


def _left_by_steps_before(case: Case, rows: IntArray) -> IntArray:
    """Return what a stretch of the recording begins with of the kind: nobody's, of their sizes, no more of each than
    are there at the peak, and gone before a backward begins."""
    lifetimes, attribution = case.lifetimes, case.history.attribution
    begins = np.append(all_backwards(case).begin, len(case.history.moments))
    following = begins[np.searchsorted(begins[:-1], lifetimes.start)]
    is_left = lifetimes.is_initial & (attribution.owner_row == NULL) & (lifetimes.in_use_end < following)
    left = Counter(lifetimes.size_bytes[rows[np.isin(rows, case.live_at_peak)]].tolist())
    found, num_found = [], Counter[tuple[int, int]]()
    for row in np.flatnonzero(is_left).tolist():
        size = int(lifetimes.size_bytes[row])
        key = int(lifetimes.start[row]), size
        if num_found[key] < left[size]:
            num_found[key] += 1
            found.append(row)
    return np.array(found, np.int64)


def _are_in_graphs(kept: KeptAllocations) -> BoolArray:
    """Return which rows were found in a graph, of what the step made in which they were found."""
    return np.asarray(kept.is_graph & ~kept.is_old)


def _may_be_unused(case: Case, kept: KeptAllocations) -> BoolArray:
    """Return which allocations no backward was seen to need, nothing but graphs keeps, and no backward or step made."""
    attribution = case.history.attribution
    made_elsewhere = case.in_phase(Phase.BACKWARD, Phase.RECOMPUTE, Phase.OPTIMIZER, Phase.EVALUATION)
    may_be = (attribution.saved_row == NULL) & (attribution.owner_row == NULL) & ~made_elsewhere
    may_be[kept.allocation[~kept.is_graph]] = False
    return np.asarray(may_be)
