"""Copies of weights in 16 bits that an autocast holds which is never left: one around the whole loop.

In: `Case` with owners. Out: a `Finding`. Autocast keeps the copy of each weight until its outermost block is left:

    around the forward    cccc backward frees them │ cccc …          made anew in each step
    around the loop       cccccccccccccccccccccccccccccccc           made once, there in all of backward and optimizer

So the copies outlive the step that made them, one for each matrix, and no later step makes them anew.
"""

from __future__ import annotations

from collections import Counter

import numpy as np

from memtrace.analysis.advice.case import Case, Cut
from memtrace.analysis.device.byte_levels import running_level
from memtrace.analysis.device.program_lines import place_of
from memtrace.analysis.device.steps import step_spans
from memtrace.analysis.faults.over_gaps import cuts_over_gaps
from memtrace.analysis.results.report import Finding
from memtrace.schema.names import Category, Phase
from memtrace.store.columns import NULL, IntArray
from memtrace.units import format_bytes

_MOST = 0.8
"""The part of the bytes of all float32 matrices of which there has to be a copy."""


def autocast_copies(case: Case) -> Finding | None:
    """Return the copies of weights that outlive the step that made them."""
    if not case.history.rank.header.get("autocast_dtypes"):
        return None
    rows = _copies(case)
    if not len(rows):
        return None
    cuts = _beyond_their_use(case, rows)
    new_peak = case.new_peak(*cuts)
    if new_peak is None:
        return None
    held = int(case.lifetimes.size_bytes[rows].sum())
    return Finding(
        slug="autocast-copies",
        severity="warning",
        title=f"An autocast that is never left holds copies of {len(rows)} weights in 16 bits from step to step: "
        f"{format_bytes(held)}",
        evidence={"copies_bytes": held, "num_copies": len(rows), "freed_at_peak_bytes": case.at_peak(*cuts)},
        change="Enter torch.autocast around each forward and its loss, and not around the loop: its copies are dropped "
        "when it is left, and only then are weights cast anew after a step of the optimizer.",
        cost="None: the weights are cast in each forward. Kept copies are those of before the optimizer's steps.",
        saves_bytes=case.peak_bytes - new_peak,
        saves_ns=None,
        new_peak_bytes=new_peak,
        rank=case.history.rank.rank,
        where=place_of(case.history, rows),
    )


def _copies(case: Case) -> IntArray:
    """Return what a forward made of half the size of a float32 parameter, and that outlives its step; one for each."""
    rank, owners = case.history.rank, case.history.rank.table("owners")
    chosen = (owners["category"] == rank.string_id(Category.PARAMETER.value)) & (
        owners["dtype"] == rank.string_id("float32")
    )
    _, first = np.unique(owners["name"][chosen], return_index=True)
    wanted = Counter((owners["tensor_bytes"][chosen][first] // 2).tolist())
    lifetimes = case.lifetimes
    ends = np.array(sorted(span.last for span in step_spans(case.history).values() if span.step >= 1), np.int64)
    made = np.flatnonzero(
        case.in_phase(Phase.FORWARD)
        & np.isin(lifetimes.size_bytes, list(wanted))
        & (case.history.attribution.owner_row == NULL)
    )
    # There at the end of the step after, too: an output that a variable names is not.
    num_ends = np.searchsorted(ends, lifetimes.in_use_end[made]) - np.searchsorted(ends, lifetimes.start[made])
    made = made[num_ends >= 2]
    made = made[np.argsort(lifetimes.start[made], kind="stable")]
    rows = [row for size in wanted for row in made[lifetimes.size_bytes[made] == size][: wanted[size]].tolist()]
    total = sum(size * count for size, count in wanted.items())
    enough = int(lifetimes.size_bytes[rows].sum()) >= _MOST * total > 0
    return np.array(sorted(rows) if enough else [], np.int64)


def _of_later_stretches(case: Case, copies: Counter[int]) -> IntArray:
    """Return what later stretches of the recording begin with and has the sizes of the copies, as many of each.

    An autocast that is entered anew, for each epoch, makes others.
    """
    lifetimes = case.lifetimes
    free = lifetimes.is_initial & (case.history.attribution.owner_row == NULL)
    found: list[int] = []
    for epoch in case.history.moments.epochs[1:]:
        first = np.flatnonzero(free & (lifetimes.start == epoch.start))
        for size, number in copies.items():
            found += first[lifetimes.size_bytes[first] == size][:number].tolist()
    return np.array(found, np.int64)


def _beyond_their_use(case: Case, rows: IntArray) -> list[Cut]:
    """Return the copies from when a backward has made the gradient of their weight to the next forward."""
    phases, rank, moments = case.history.rank.table("phases"), case.history.rank, case.history.moments
    forwards = np.sort(moments.at_times(phases["start_ns"][phases["phase"] == rank.string_id(Phase.FORWARD.value)]))
    gradients = np.flatnonzero(case.is_category(Category.GRADIENT) & case.in_phase(Phase.BACKWARD))
    lifetimes, sizes = case.lifetimes, case.lifetimes.size_bytes
    copies = Counter(sizes[rows].tolist())
    starts, ends, num_bytes = [], [], []
    met: Counter[tuple[int, int]] = Counter()
    for row in gradients[np.argsort(case.lifetimes.start[gradients])].tolist():
        start, size = int(case.lifetimes.start[row]), int(sizes[row]) // 2
        following = int(np.searchsorted(forwards, start, side="right"))
        met[following, size] += 1
        if met[following, size] <= copies[size]:
            starts.append(start)
            ends.append(int(forwards[following]) if following < len(forwards) else len(case.level))
            num_bytes.append(size)
    there = np.zeros(len(case.level), np.int64)
    for cut in cuts_over_gaps(case, rows):
        there += running_level(cut.start, cut.end, cut.size_bytes, len(there))
    later = _of_later_stretches(case, copies)
    again = running_level(lifetimes.start[later], lifetimes.in_use_end[later], sizes[later], len(there))
    there = np.maximum(there, again)
    # No more than is known, or not known otherwise, to be there.
    enough = np.array([there[start] >= sizes[rows].sum() for start in starts], np.bool_)
    columns = [np.array(column, np.int64)[enough] for column in (starts, ends, num_bytes)]
    return [Cut(start=columns[0], end=columns[1], size_bytes=columns[2])]
