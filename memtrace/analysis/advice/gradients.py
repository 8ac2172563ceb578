"""Gradients that lie about during the next forward, where nothing needs them.

In: `Case`. Out: a `Finding`. From the optimizer step to the next backward a gradient is of no use:

    recorded   step | zero_grad | forward           | backward
    held       g g g g g g g g g g g g g g g g g g g g g g g g g        zero_grad(set_to_none=False)
    dropped    g g g                                  g' g' g' g'

With `set_to_none=False` the first backward of a step makes each gradient as a temporary and adds it to the one held;
without, that temporary becomes the gradient. Backward makes the same allocations in every step, so the temporary is
known: of all allocations of its size, it stands where the gradient stood when that was made.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from memtrace.analysis.advice.case import Case, Cut
from memtrace.analysis.advice.passes import Pass, first_passes
from memtrace.analysis.places import place_of
from memtrace.analysis.results import Finding
from memtrace.schema.names import Category
from memtrace.store.columns import NULL, IntArray
from memtrace.units import format_bytes


def gradients_through_forward(case: Case) -> Finding | None:
    """Return the advice to drop gradients before the next forward, where they are alive during it."""
    rows, passes = _separate_gradients(case), first_passes(case)
    cuts = [_held(case, rows, passes, at) for at in range(len(passes))]
    new_peak = case.new_peak(*cuts)
    if new_peak is None:
        return None
    held, is_kept = case.at_peak(*cuts), _are_kept(case, rows, passes)
    change = (
        "Call optimizer.zero_grad(set_to_none=True), the default of torch, in place of set_to_none=False"
        if is_kept
        else "Call optimizer.zero_grad() right after optimizer.step(), before the forward and not after it"
    )
    return Finding(
        slug="gradients-through-forward",
        severity="warning",
        title=f"Gradients of the step before are held through the forward: {format_bytes(held)} at the peak",
        evidence={"gradients_held_at_peak_bytes": held, "zeroed_in_place": is_kept},
        change=f"{change}.",
        cost="None: backward makes gradients anew. Code that reads .grad between steps must expect None.",
        saves_bytes=case.peak_bytes - new_peak,
        saves_ns=None,
        new_peak_bytes=new_peak,
        rank=case.history.rank.rank,
        where=place_of(case.history, rows),
    )


def _separate_gradients(case: Case) -> IntArray:
    """Return the gradients that have a storage of their own: a part of a bucket cannot be dropped alone."""
    rows = np.flatnonzero(case.is_category(Category.GRADIENT))
    owners, owner = case.history.rank.table("owners"), case.history.attribution.owner_row[rows]
    is_part = np.append(owners["size_bytes"] > owners["tensor_bytes"], False)
    separate: IntArray = rows[~is_part[np.where(owner == NULL, len(owners), owner)]]
    return separate


def _held(case: Case, rows: IntArray, passes: Sequence[Pass], at: int) -> Cut:
    """Return the bytes of gradients that one step would not hold until it makes them again."""
    this, lifetimes = passes[at], case.lifetimes
    held = rows[(lifetimes.start[rows] < this.forward) & (lifetimes.in_use_end[rows] > this.forward)]
    ends = lifetimes.in_use_end[held].copy()
    lives_on = ends > this.backward
    ends[lives_on] = this.backward
    for before in passes[:at]:
        # Where it was made before, and what stands in its place now.
        made = np.flatnonzero(
            lives_on & (lifetimes.start[held] >= before.backward) & (lifetimes.start[held] < before.end)
        )
        twin = _twins(case, held[made], before, this)
        known = twin >= 0
        ends[made[known]] = lifetimes.in_use_end[twin[known]]
    from_then_on = np.maximum(lifetimes.start[held], this.after_step)
    return Cut(start=from_then_on, end=np.maximum(ends, from_then_on), size_bytes=lifetimes.size_bytes[held])


def _twins(case: Case, rows: IntArray, before: Pass, now: Pass) -> IntArray:
    """Return for allocations of one backward those that another backward makes in their place; -1 where not known."""
    old, new = _by_size(case, before), _by_size(case, now)
    sizes = case.lifetimes.size_bytes
    old_first, old_last = (np.searchsorted(sizes[old], sizes[rows], side=side) for side in ("left", "right"))
    new_first, new_last = (np.searchsorted(sizes[new], sizes[rows], side=side) for side in ("left", "right"))
    place = np.empty(len(sizes), np.int64)
    place[old] = np.arange(len(old))
    same = (old_last - old_first) == (new_last - new_first)
    found = np.full(len(rows), -1, np.int64)
    found[same] = new[(new_first + place[rows] - old_first)[same]]
    return found


def _by_size(case: Case, one: Pass) -> IntArray:
    """Return the allocations made in a backward, ordered by size, then by time."""
    start = case.lifetimes.start
    made = np.flatnonzero((start >= one.backward) & (start < one.end) & ~case.lifetimes.is_initial)
    return made[np.lexsort((start[made], case.lifetimes.size_bytes[made]))]


def _are_kept(case: Case, rows: IntArray, passes: Sequence[Pass]) -> bool:
    """Return whether most of what is held at the peak is not dropped in the pass that holds it, but kept for good."""
    live = rows[np.isin(rows, case.live_at_peak)]
    this = next((one for one in passes if one.after_step <= case.peak_moment < one.end), None)
    if this is None:
        return False
    sizes, held = case.lifetimes.size_bytes[live], case.lifetimes.start[live] < this.forward
    stays = held & (case.lifetimes.in_use_end[live] > this.end)
    return bool(2 * sizes[stays].sum() > sizes[held].sum())
