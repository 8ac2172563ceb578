"""Gradients that are there once more: a flat copy of all of them, or the buckets of DistributedDataParallel.

In: `Case` with owners. Out: `Finding`s. A flat copy is one allocation without an owner that has the bytes of all
gradients together, in their type or in half of it, and that training made or writes to; which buckets there are, the
reducer itself says.
"""

from __future__ import annotations

import numpy as np

from memtrace.analysis.advice.case import Case
from memtrace.analysis.device.keepers import seen_writes
from memtrace.analysis.device.program_lines import place_of
from memtrace.analysis.events.over_gaps import first_rows
from memtrace.analysis.results.report import Finding
from memtrace.schema.names import Category, Phase
from memtrace.store.columns import NULL, IntArray
from memtrace.units import format_bytes

_LEAST_GRADIENTS = 3
_NEARLY_ALL = 0.98
_MOST_COPIES = 2
"""Copies at once: one that is reduced, and one that is received. More blocks of that size may be something else."""
_LITTLE_MORE = 1.02
"""Padding of a flat buffer."""


def flat_copy_of_gradients(case: Case) -> Finding | None:
    """Return one buffer that holds all gradients again, to be reduced, clipped or sent at once."""
    gradients = case.live_at_peak[case.is_category(Category.GRADIENT)[case.live_at_peak]]
    total = int(case.lifetimes.size_bytes[gradients].sum())
    # Which are gradients must be known, and not inferred: a wrong total is the size of many a block.
    if len(gradients) < _LEAST_GRADIENTS or (case.history.attribution.owner_row[gradients] == NULL).any():
        return None
    rows = _without_owner(case)
    sizes = case.lifetimes.size_bytes[rows]
    as_large = np.zeros(len(rows), np.bool_)
    for whole in (total, total // 2):
        as_large |= (sizes >= _NEARLY_ALL * whole) & (sizes <= _LITTLE_MORE * whole)
    rows = _made_by_training(case, rows[as_large])
    live = rows[np.isin(rows, case.live_at_peak)]
    cut = case.cut(rows)
    new_peak = case.new_peak(cut)
    # Batches may have that size as well.
    are_batches = len(live) > _MOST_COPIES and case.is_category(Category.INPUT)[live].any()
    if new_peak is None or not len(live) or are_batches:
        return None
    num_bytes = case.at_peak(cut)
    what = "A flat copy of all gradients is" if len(live) == 1 else "Flat copies of all gradients are"
    return Finding(
        slug="flat-gradients",
        severity="warning",
        title=f"{what} made beside them: {format_bytes(num_bytes)} at the peak",
        evidence={"copy_bytes": num_bytes, "gradient_bytes": total, "num_gradients": len(gradients)},
        change="Work on the gradients in place: reduce each by itself (dist.all_reduce(p.grad), or coalesced), or some "
        "25 MiB at a time; DistributedDataParallel does that while backward runs, clip_grad_norm_ needs no copy.",
        cost="None, or more and smaller messages.",
        saves_bytes=case.peak_bytes - new_peak,
        saves_ns=None,
        new_peak_bytes=new_peak,
        rank=case.history.rank.rank,
        where=place_of(case.history, live),
    )


def buckets_beside_gradients(case: Case) -> Finding | None:
    """Return the advice to let gradients be views of the buckets in which they are reduced."""
    buckets = case.history.rank.table("buckets")
    if not len(buckets):
        return None
    last = buckets["time_ns"] == buckets["time_ns"].max()
    reduced = int(buckets["size_bytes"][last].sum())
    held = case.live_at_peak[case.is_category(Category.COMMUNICATION)[case.live_at_peak]]
    gradients = _separate_gradients(case)
    cut = case.cut(gradients)
    at_peak = case.at_peak(cut)
    # What is reduced is in the buckets, and there as gradients as well.
    if int(case.lifetimes.size_bytes[held].sum()) < _NEARLY_ALL * reduced or at_peak > _LITTLE_MORE * reduced:
        return None
    new_peak = case.new_peak(cut)
    if new_peak is None:
        return None
    return Finding(
        slug="buckets-beside-gradients",
        severity="info",
        title=f"DistributedDataParallel's buckets hold the gradients once more: {format_bytes(at_peak)} at the peak",
        evidence={"gradients_at_peak_bytes": at_peak, "bucket_bytes": reduced, "num_buckets": int(last.sum())},
        change="DistributedDataParallel(model, gradient_as_bucket_view=True): gradients are then views of the buckets.",
        cost="None. Gradients cannot be detached in place (detach_()) any more.",
        saves_bytes=case.peak_bytes - new_peak,
        saves_ns=None,
        new_peak_bytes=new_peak,
        rank=case.history.rank.rank,
        where=None,
    )


def _made_by_training(case: Case, rows: IntArray) -> IntArray:
    """Return which of some allocations are younger than the first gradient, or are seen to be written to.

    What was there before may be of that size by chance: a data set.
    """
    lifetimes, history = case.lifetimes, case.history
    backward = np.flatnonzero(case.in_phase(Phase.BACKWARD))
    first = int(lifetimes.start[backward].min(initial=len(history.moments)))
    is_young = lifetimes.start[first_rows(lifetimes, history.moments)[rows]] > first
    old = np.flatnonzero(~is_young)
    is_written = [seen_writes(history, rows[at : at + 1]).written_bytes > 0 for at in old.tolist()]
    found: IntArray = np.delete(rows, old[~np.array(is_written, np.bool_)])
    return found


def _without_owner(case: Case) -> IntArray:
    chosen = case.is_category(Category.TEMPORARY, Category.UNKNOWN, Category.ACTIVATION, Category.INPUT)
    # In backward gradients are not all there yet, and some optimizers (LBFGS) work on flat ones.
    chosen &= ~case.in_phase(Phase.FORWARD, Phase.BACKWARD, Phase.RECOMPUTE, Phase.OPTIMIZER)
    found: IntArray = np.flatnonzero(chosen & (case.history.attribution.owner_row == NULL))
    return found


def _separate_gradients(case: Case) -> IntArray:
    """Return the gradients that have a storage of their own, and are no part of a bucket."""
    rows = np.flatnonzero(case.is_category(Category.GRADIENT))
    owners, owner = case.history.rank.table("owners"), case.history.attribution.owner_row[rows]
    is_part = np.append(owners["size_bytes"] > owners["tensor_bytes"], False)
    found: IntArray = rows[~is_part[np.where(owner == NULL, len(owners), owner)]]
    return found
