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

import functools
from collections.abc import Collection, Iterator, Sequence

import numpy as np

from memtrace.analysis.advice.case import Case, Cut
from memtrace.analysis.advice.passes import Pass, first_passes
from memtrace.analysis.device.program_lines import place_of
from memtrace.analysis.events.over_gaps import first_rows
from memtrace.analysis.results.diagnosis import Keeper
from memtrace.analysis.results.report import Finding
from memtrace.analysis.sentences.keepers import kept_by
from memtrace.schema.names import Category, Phase
from memtrace.store.columns import NULL, IntArray
from memtrace.units import format_bytes

_VARIABLES = ("variable", "container")
"""What keeps what `torch.autograd.grad` returned."""


def gradients_through_forward(case: Case) -> Finding | None:
    """Return the advice to drop gradients before the next forward, where they are alive during it."""
    rows, passes = _separate_gradients(case), first_passes(case)
    # Those that no optimizer steps are no matter of when they are dropped.
    rows = np.setdiff1d(rows, gradients_of(case, set(case.history.rank.header.get("unstepped_parameters") or ())))
    rows = np.setdiff1d(rows, _returned(case, rows))
    cut = _held(case, rows, passes)
    new_peak = case.new_peak(cut)
    if new_peak is None:
        return None
    held, is_kept = case.at_peak(cut), _are_kept(case, rows, passes)
    # Whether zero_grad was told to keep them was recorded; that they are kept alone does not say why.
    is_zeroed = is_kept and bool(case.history.rank.header.get("keeps_gradients"))
    if is_zeroed:
        change = "Call optimizer.zero_grad(set_to_none=True), the default of torch, in place of set_to_none=False"
    elif _steps_by_hand(case):
        change = "Set .grad of each parameter to None once it is updated, before the forward (parameter.grad = None)"
    elif is_kept:
        change = "Drop the gradients after optimizer.step(): nothing does, so find out whether zero_grad() covers them"
    else:
        change = "Call optimizer.zero_grad() right after optimizer.step(), before the forward and not after it"
    return Finding(
        slug="gradients-through-forward",
        severity="warning",
        title=f"Gradients of the step before are held through the forward: {format_bytes(held)} at the peak",
        evidence={
            "gradients_held_at_peak_bytes": held,
            "kept_from_step_to_step": is_kept,
            "zeroed_in_place": is_zeroed,
        },
        change=f"{change}.",
        cost="None: backward makes gradients anew. Code that reads .grad between steps must expect None.",
        saves_bytes=case.peak_bytes - new_peak,
        saves_ns=None,
        new_peak_bytes=new_peak,
        rank=case.history.rank.rank,
        where=place_of(case.history, rows),
    )


def _steps_by_hand(case: Case) -> bool:
    """Return whether a recording saw no optimizer."""
    rank = case.history.rank
    is_phase = rank.table("phases")["phase"] == rank.string_id(Phase.OPTIMIZER.value)
    return len(rank.table("owners")) > 0 and not (len(rank.table("optimizers")) or is_phase.any())


def returned_gradients_through_forward(case: Case) -> Finding | None:
    """Return the advice to let go of what `torch.autograd.grad` returned before the next forward."""
    rows = _returned(case, _separate_gradients(case))
    cut = _from_next_step_on(case, rows)
    new_peak, held, keeper = case.new_peak(cut), case.at_peak(cut), _keeper(case, rows)
    # Who holds them tells that they were returned: a library may have gradients in places of its own.
    if new_peak is None or keeper is None or keeper.kind not in _VARIABLES or 2 * keeper.num_bytes < held:
        return None
    return Finding(
        slug="returned-gradients",
        severity="warning",
        title=f"Gradients that were returned are held through the next forward: {format_bytes(held)} at the peak, "
        f"kept by {keeper.text}",
        evidence={"gradients_held_at_peak_bytes": held, **kept_by(keeper)},
        change="Let go of what torch.autograd.grad returned once it is used (del), or put the body of the loop into a "
        "function of its own. zero_grad() does not reach it: it is in no .grad.",
        cost="None.",
        saves_bytes=case.peak_bytes - new_peak,
        saves_ns=None,
        new_peak_bytes=new_peak,
        rank=case.history.rank.rank,
        where=place_of(case.history, rows),
    )


def _returned(case: Case, rows: IntArray) -> IntArray:
    """Return which gradients were in no `.grad` when a step ended: they have no owner, where owners are known."""
    owners, rank = case.history.rank.table("owners"), case.history.rank
    parameters, gradients = (
        owners["category"] == rank.string_id(one.value) for one in (Category.PARAMETER, Category.GRADIENT)
    )
    if not parameters.any() or not case.history.moments.has_times:
        return rows[:0]
    rows = rows[case.history.attribution.owner_row[rows] == NULL]
    if not gradients.any():
        return rows
    # Where some are in a `.grad`, only what was there at a look at all owners is known not to be.
    looks = case.history.moments.at_times(np.unique(owners["time_ns"][parameters]))
    following = np.append(looks, len(case.history.moments))[np.searchsorted(looks, case.lifetimes.start[rows])]
    found: IntArray = rows[following < case.lifetimes.in_use_end[rows]]
    return found


def _keeper(case: Case, rows: IntArray) -> Keeper | None:
    kept = case.kept
    return None if kept is None else kept.largest(np.flatnonzero(np.isin(kept.allocation, rows)))


def gradients_of(case: Case, names: Collection[str]) -> IntArray:
    """Return the allocations that are gradients of parameters with some names."""
    rank, owners = case.history.rank, case.history.rank.table("owners")
    ids = [number for number in np.unique(owners["name"]).tolist() if number != NULL and rank.text(number) in names]
    chosen = (owners["category"] == rank.string_id(Category.GRADIENT.value)) & np.isin(owners["name"], ids)
    found = np.unique(case.history.attribution.allocation_of_owner[chosen])
    return found[found >= 0]


def _separate_gradients(case: Case) -> IntArray:
    """Return the gradients that have a storage of their own: a part of a bucket cannot be dropped alone."""
    rows = np.flatnonzero(case.is_category(Category.GRADIENT))
    owners, owner = case.history.rank.table("owners"), case.history.attribution.owner_row[rows]
    is_part = np.append(owners["size_bytes"] > owners["tensor_bytes"], False)
    separate: IntArray = rows[~is_part[np.where(owner == NULL, len(owners), owner)]]
    return separate


def _held(case: Case, rows: IntArray, passes: Sequence[Pass]) -> Cut:
    """Return the bytes of gradients that the steps would not hold until they make them again."""
    lifetimes = case.lifetimes
    after_step, forward, backward, end = _columns(passes)
    # A gradient is held by every pass whose forward begins in its life: a row for each of the two.
    first = np.searchsorted(forward, lifetimes.start[rows], side="right")
    count = np.maximum(np.searchsorted(forward, lifetimes.in_use_end[rows]) - first, 0)
    held, at = np.repeat(rows, count), np.repeat(first, count)
    # Counted up within each gradient: of counts 2, 0, 3 the passes are first + 0, 1 and first + 0, 1, 2.
    at = at + np.arange(len(at)) - np.repeat(np.cumsum(count) - count, count)
    ends = np.minimum(lifetimes.in_use_end[held], backward[at])
    # What is there again after a gap was made before it.
    origin = first_rows(lifetimes, case.history.moments)[held]
    made = np.searchsorted(backward, lifetimes.start[origin], side="right") - 1
    is_made_again = (lifetimes.in_use_end[held] > backward[at]) & (made >= 0) & (made < at)
    is_made_again &= lifetimes.start[origin] < end[made]
    for chosen, twins in _made_again(case, passes, origin, made, at, np.flatnonzero(is_made_again)):
        ends[chosen] = lifetimes.in_use_end[twins]
    starts = np.maximum(lifetimes.start[held], after_step[at])
    return Cut(start=starts, end=np.maximum(ends, starts), size_bytes=lifetimes.size_bytes[held], rows=held)


def _from_next_step_on(case: Case, rows: IntArray) -> Cut:
    """Return the bytes of what backward returned from the step after that one on, where its forward sees them."""
    after_step, forward, _, _ = _columns(first_passes(case))
    # What was there when a stretch began is of the step before: a forward that begins with the stretch follows it.
    made_by = case.lifetimes.start[rows] - case.lifetimes.is_initial[rows]
    following = np.searchsorted(forward, made_by, side="right")
    rows, following = (one[following < len(forward)] for one in (rows, following))
    is_held = case.lifetimes.in_use_end[rows] > forward[following]
    rows, following = rows[is_held], following[is_held]
    start = np.maximum(after_step[following], case.lifetimes.start[rows])
    return case.cut(rows, start=start)


def _columns(passes: Sequence[Pass]) -> tuple[IntArray, IntArray, IntArray, IntArray]:
    rows = [(one.after_step, one.forward, one.backward, one.end) for one in passes]
    after_step, forward, backward, end = np.array(rows, np.int64).reshape(-1, 4).T
    return after_step, forward, backward, end


def _made_again(
    case: Case, passes: Sequence[Pass], held: IntArray, made: IntArray, at: IntArray, chosen: IntArray
) -> Iterator[tuple[IntArray, IntArray]]:
    """Yield positions in `held`, and the allocations that the pass which holds them makes in their place."""
    by_size = functools.cache(lambda number: _by_size(case, passes[number]))
    order = chosen[np.lexsort((at[chosen], made[chosen]))]
    is_new = (np.diff(made[order]) != 0) | (np.diff(at[order]) != 0)
    for group in np.split(order, np.flatnonzero(is_new) + 1):
        if len(group):
            twins = _twins(case, held[group], by_size(int(made[group[0]])), by_size(int(at[group[0]])))
            yield group[twins >= 0], twins[twins >= 0]


def _twins(case: Case, rows: IntArray, old: IntArray, new: IntArray) -> IntArray:
    """Return for allocations of one backward those that another backward makes in their place; -1 where not known.

    `old` and `new` are what the two make, ordered by size, then by time. Where both make as many of a size, the third
    of them takes the place of the third: a backward runs in the same order each time.
    """
    sizes = case.lifetimes.size_bytes
    old_first, old_last = (np.searchsorted(sizes[old], sizes[rows], side=side) for side in ("left", "right"))
    new_first, new_last = (np.searchsorted(sizes[new], sizes[rows], side=side) for side in ("left", "right"))
    # Where in `old` each row stands, less where its size begins: how many of its size were made before it.
    by_row = np.argsort(old)
    place = by_row[np.searchsorted(old[by_row], rows)] - old_first
    same = (old_last - old_first) == (new_last - new_first)
    found = np.full(len(rows), -1, np.int64)
    found[same] = new[(new_first + place)[same]]
    return found


def _by_size(case: Case, one: Pass) -> IntArray:
    """Return the allocations made in a backward, ordered by size, then by time."""
    first, last = np.searchsorted(case.starts, (one.backward, one.end))
    made = case.by_start[first:last]
    return made[np.argsort(case.lifetimes.size_bytes[made], kind="stable")]


def _are_kept(case: Case, rows: IntArray, passes: Sequence[Pass]) -> bool:
    """Return whether most of what is held at the peak is not dropped in the pass that holds it, but kept for good."""
    live = rows[np.isin(rows, case.live_at_peak)]
    this = next((one for one in passes if one.after_step <= case.peak_moment < one.end), None)
    if this is None:
        return False
    sizes, held = case.lifetimes.size_bytes[live], case.lifetimes.start[live] < this.forward
    stays = held & (case.lifetimes.in_use_end[live] > this.end)
    return bool(2 * sizes[stays].sum() > sizes[held].sum())
