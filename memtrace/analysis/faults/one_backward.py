"""One backward for several forwards of the same model: the graphs of all of them are there when it begins.

In: `Case` with module scopes and inputs. Out: a `Finding`. Losses of micro-batches that are added up, and sent back at
once, need the activations of all; a backward for each needs those of one, and gradients a little earlier:

    at once     f f f f bbbb        each    f b f b f b f b
                a aa aaa aaaa               a   a   a   a
                                              g   g   g   g

A model that is called for each moment of a sequence is called as often, and cannot be sent back in parts. That is the
user's to know, so it is told as a trade.
"""

from __future__ import annotations

from collections import Counter

import numpy as np

from memtrace.analysis.advice.case import Case, Cut
from memtrace.analysis.advice.passes import Pass, all_passes
from memtrace.analysis.advice.unused_graph import unused_rows
from memtrace.analysis.results.report import Finding
from memtrace.schema.names import Category
from memtrace.store.columns import IntArray
from memtrace.units import format_bytes

_LEAST_FORWARDS = 4
"""Two or three are common where they are needed at once: real and made images, an anchor and its like and unlike."""


def one_backward(case: Case) -> Finding | None:
    """Return the advice to send each of several forwards back by itself, where their graphs make the peak."""
    passes = [(one, calls) for one in all_passes(case) if len(calls := _calls(case, one)) >= _LEAST_FORWARDS]
    if not passes:
        return None
    unused = unused_rows(case)
    cuts = [cut for one, calls in passes for cut in _earlier(case, one, calls, unused)]
    new_peak = case.new_peak(*cuts)
    if new_peak is None:
        return None
    held = case.at_peak(*cuts)
    number = max(len(calls) for _, calls in passes)
    live = np.intersect1d(case.live_at_peak, np.flatnonzero(case.is_category(Category.ACTIVATION)))
    return Finding(
        slug="one-backward",
        severity="info",
        title=f"One backward follows {number} forwards and needs what all of them kept: {format_bytes(held)} more",
        evidence={"num_forwards": number, "earlier_forwards_at_peak_bytes": held},
        change=f"If they are independent micro-batches, call (loss / {number}).backward() after each forward, in place "
        "of one backward of their sum.",
        cost="None: the same arithmetic. What needs all of them at once (a sequence, a contrast) cannot be parted.",
        saves_bytes=case.peak_bytes - new_peak,
        saves_ns=None,
        new_peak_bytes=new_peak,
        rank=case.history.rank.rank,
        where=case.line_above(live),
    )


def _calls(case: Case, one: Pass) -> IntArray:
    """Return the moments at which a pass calls its outermost module, each time with a batch of one shape."""
    scopes, moments = case.history.rank.table("scopes"), case.history.moments
    start, end = (moments.at_times(scopes[name]) for name in ("start_ns", "end_ns"))
    inside = np.flatnonzero((start >= one.forward - 1) & (start < one.backward) & ~scopes["recompute"] & (end >= start))
    if not len(inside):
        return np.zeros(0, np.int64)
    order = inside[np.lexsort((-scopes["end_ns"][inside], scopes["start_ns"][inside]))]
    # An outermost call begins when all before it have ended.
    before = np.concatenate([[0], np.maximum.accumulate(scopes["end_ns"][order])[:-1]])
    outermost = order[scopes["start_ns"][order] >= before]
    module, _ = Counter(scopes["module"][outermost].tolist()).most_common(1)[0]
    own = outermost[scopes["module"][outermost] == module]
    given = _given(case, scopes["start_ns"][own], scopes["end_ns"][own])
    return start[own] if len(set(given)) == 1 and given[0] else np.zeros(0, np.int64)


def _given(case: Case, start_ns: IntArray, end_ns: IntArray) -> list[tuple[int, ...]]:
    """Return the shapes of what each call was given that no module had computed; it was seen right before the call."""
    rank, owners = case.history.rank, case.history.rank.table("owners")
    rows = np.flatnonzero(owners["category"] == rank.string_id(Category.INPUT.value))
    times, shapes = owners["time_ns"][rows], owners["shape"][rows]
    found = []
    for before, start in zip([0, *end_ns[:-1].tolist()], start_ns.tolist(), strict=True):
        seen = times[(times <= start) & (times > before)]
        found.append(tuple(sorted(shapes[times == seen.max()].tolist())) if len(seen) else ())
    return found


def _earlier(case: Case, one: Pass, calls: IntArray, unused: IntArray) -> list[Cut]:
    """Return what all forwards but the last made, from when the next one begins, and gradients as they come earlier."""
    lifetimes = case.lifetimes
    made = case.by_start[slice(*np.searchsorted(case.starts, (calls[0], calls[-1])).tolist())]
    made = made[case.is_category(Category.ACTIVATION)[made] & (lifetimes.in_use_end[made] > calls[-1])]
    # What no backward uses is not what it needs.
    made = np.setdiff1d(made, unused)
    following = np.searchsorted(calls, lifetimes.start[made], side="right")
    begin = calls[np.minimum(following, len(calls) - 1)]
    dropped = case.cut(made, start=begin)
    own = case.by_start[slice(*np.searchsorted(case.starts, (one.backward, one.end)).tolist())]
    own = own[case.is_category(Category.GRADIENT)[own]]
    early = Cut(
        start=np.full(len(own), calls[1], np.int64),
        end=lifetimes.start[own],
        size_bytes=-lifetimes.size_bytes[own],
    )
    return [dropped, early]
