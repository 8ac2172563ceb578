"""Second copies of what is trained: a loaded checkpoint, an averaged model, models and optimizers of earlier rounds.

In: `Case` with owners. Out: `Finding`s. Two things tell them apart from all else:

- blocks that nobody owns, made outside forward, backward and optimizer, that outlive steps, and whose sizes repeat the
  list of the parameters, small ones and large ones, once or several times in their type, or once in one half or twice
  as wide;
- states that an optimizer holds for more parameters of each shape than get a gradient, with those parameters: what an
  earlier round trained, and does not train any more.

Without an optimizer of torch the sizes alone may as well be those of its states, and nothing is said. Beside one, sizes
do not tell a copy from what the program keeps a set of by itself (a momentum, gradients that are summed up, an average,
slow weights): whether it writes to them while it trains does, and the words are others then. Where that was not seen,
the words say sizes only.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from memtrace.analysis.advice.case import Case
from memtrace.analysis.attribution.parameter_sets import in_sets
from memtrace.analysis.device.keepers import seen_writes
from memtrace.analysis.device.program_lines import place_of
from memtrace.analysis.device.steps import step_spans
from memtrace.analysis.faults.over_gaps import cuts_over_gaps
from memtrace.analysis.results.report import Finding
from memtrace.analysis.sentences.keepers import kept_by
from memtrace.schema.names import Category, Phase
from memtrace.store.columns import NULL, IntArray
from memtrace.units import format_bytes

_WHOLE = 0.9
"""The part of the parameters' bytes, and of their number, that a copy has to repeat: a model may have been changed a
little since. A few blocks as large as the largest weight are no copy of the model."""
_LEAST_TENSORS = 3
_LEAST_SIZES = 2
_WIDTHS = {1.0: "", 0.5: " in a type of half the width", 2.0: " in a type of twice the width"}
_WIDENED = ("bfloat16", "float16")
_NARROWED = ("float32", "float64")
_LEAST_SHARE_OF_KEEPER = 0.5
"""What keeps less of a copy is not what keeps it: the loop variable that went over its tensors has the last of them."""


_AS_LARGE = " as large as all parameters"
_UNUSED = "that no forward and no optimizer was seen to use"
_DROP = (
    "If it is what was loaded, drop it after load_state_dict (del checkpoint), or load it with "
    'map_location="cpu". If it is an average or the best model so far, keep it on the CPU. '
    "What a loss compares the weights with (EWC, L2-SP) has to stay."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Copies:
    """Allocations that repeat what is trained."""

    rows: IntArray
    number: int
    """How many times they do."""
    what: str
    change: str
    is_by_size: bool
    """Whether sizes alone tell, so that it may as well be what the program works with."""


def second_copies(case: Case) -> Finding | None:
    """Return what is held beside the parameters that are trained, and repeats them."""
    found = [one for one in (_unowned(case), _of_earlier_rounds(case)) if one is not None]
    if not found:
        return None
    copies = max(found, key=lambda one: int(case.lifetimes.size_bytes[one.rows].sum()))
    cuts = cuts_over_gaps(case, copies.rows)
    new_peak = case.new_peak(*cuts)
    if new_peak is None:
        return None
    held = case.at_peak(*cuts)
    kept = case.kept
    keeper = None if kept is None else kept.keeper_of_all(copies.rows)
    if keeper is not None and keeper.num_bytes < _LEAST_SHARE_OF_KEEPER * held:
        keeper = None
    by_whom = "" if keeper is None else f", kept by {keeper.text}"
    is_written = _is_written(case, copies)
    words = _words(copies, is_written=is_written)
    return Finding(
        slug="own-sets" if is_written else "second-copy",
        severity="info" if is_written else "warning",
        title=f"{words.what}: {format_bytes(held)} at the peak{by_whom}",
        evidence={
            "copies_at_peak_bytes": held,
            "num_copies": copies.number,
            "num_tensors": len(copies.rows),
            "parameter_bytes": sum(size for size, _ in _parameters(case)),
            "is_written": is_written,
            **kept_by(keeper),
        },
        change=words.change,
        cost=words.cost,
        saves_bytes=case.peak_bytes - new_peak,
        saves_ns=None,
        new_peak_bytes=new_peak,
        rank=case.history.rank.rank,
        where=place_of(case.history, copies.rows) or (None if keeper is None else keeper.where),
    )


class _Words(NamedTuple):
    what: str
    change: str
    cost: str


def _words(copies: _Copies, *, is_written: bool | None) -> _Words:
    """Return what is to be said of copies, given whether the program writes to them, or that it is not known."""
    of_reads = "None where nothing reads it; a copy on the CPU has to be moved when it is read."
    if not copies.is_by_size:
        return _Words(copies.what, copies.change, of_reads)
    if is_written:
        return _Words(
            f"{copies.what}, which the program itself writes to as it trains",
            "If it is an average of the weights (EMA, SWA), keep it on the CPU. What the program needs in each step, "
            "as a momentum, summed gradients or slow weights of its own, has to stay.",
            "A copy between device and CPU each time that it is written to; none where nothing reads it.",
        )
    if is_written is None:
        return _Words(
            f"{copies.what} {_UNUSED}",
            f"{_DROP} What the program itself works with in each step, as a momentum of its own, has to stay.",
            of_reads,
        )
    copy = "A second copy" if copies.number == 1 else f"{copies.number} more copies"
    sizes = copies.what.partition(_AS_LARGE)[2]
    return _Words(f"{copy} of all parameters{sizes} {_UNUSED}, and nothing to write to", _DROP, of_reads)


def _is_written(case: Case, copies: _Copies) -> bool | None:
    """Return whether the program writes to most of some copies; `None` where most of them was not looked at twice."""
    if not copies.is_by_size:
        return None
    seen, total = seen_writes(case.history, copies.rows), int(case.lifetimes.size_bytes[copies.rows].sum())
    if 2 * seen.written_bytes >= total:
        return True
    return False if 2 * seen.looked_bytes >= total else None


def _last_sweep(case: Case) -> IntArray:
    """Return the rows of owners of the last look at everything that is owned before the peak, or after it."""
    owners, rank = case.history.rank.table("owners"), case.history.rank
    of_device = owners["device"] == rank.string_id(case.history.device)
    parameters = of_device & (owners["category"] == rank.string_id(Category.PARAMETER.value))
    if not parameters.any():
        return np.zeros(0, np.int64)
    times = owners["time_ns"][parameters]
    peak_ns = int(case.history.moments.time_ns[case.peak_moment]) if case.history.moments.has_times else 0
    after = times[times >= peak_ns]
    chosen = int(after.min()) if len(after) else int(times.max())
    return np.flatnonzero(of_device & (owners["time_ns"] == chosen))


def _named(case: Case, rows: IntArray, category: Category) -> IntArray:
    owners, rank = case.history.rank.table("owners"), case.history.rank
    found: IntArray = rows[owners["category"][rows] == rank.string_id(category.value)]
    return found


def _parameters(case: Case) -> list[tuple[int, int]]:
    """Return bytes and allocation of each parameter, each storage once."""
    owners = case.history.rank.table("owners")
    rows = _named(case, _last_sweep(case), Category.PARAMETER)
    _, first = np.unique(owners["address"][rows], return_index=True)
    rows = rows[np.sort(first)]
    of_owner = case.history.attribution.allocation_of_owner[rows]
    return list(zip(owners["size_bytes"][rows].tolist(), of_owner.tolist(), strict=True))


def _unowned(case: Case) -> _Copies | None:
    """Return blocks without an owner whose sizes repeat the list of the parameters."""
    sizes = Counter(size for size, _ in _parameters(case))
    if _compares_weights(case, sizes):
        return None
    if not len(case.history.rank.table("optimizers")) or sizes.total() < _LEAST_TENSORS or len(sizes) < _LEAST_SIZES:
        return None
    moments = [case.peak_moment, *(span.last for span in step_spans(case.history).values() if span.step >= 1)]
    found = (_repeating(case, sizes, _lasting(case, moment)) for moment in moments)
    return next((copies for copies in found if copies is not None), None)


def _compares_weights(case: Case, sizes: Counter[int]) -> bool:
    """Return whether autograd keeps a tensor of the size of each parameter that nobody owns: a loss measures how far
    the weights are from others (EWC, L2-SP), so that these are in use."""
    attribution = case.history.attribution
    rows = np.flatnonzero((attribution.saved_row != NULL) & (attribution.owner_row == NULL))
    ends = np.array(sorted(span.last for span in step_spans(case.history).values()), np.int64)
    step = np.searchsorted(ends, case.lifetimes.start[rows])
    return bool(in_sets(case.lifetimes.size_bytes[rows], step, sizes).any())


def _repeating(case: Case, sizes: Counter[int], candidates: IntArray) -> _Copies | None:
    """Return those of some allocations whose sizes repeat given ones, as often as all are there."""
    by_size: dict[int, list[int]] = {}
    for row in candidates.tolist():
        by_size.setdefault(int(case.lifetimes.size_bytes[row]), []).append(row)
    for width in _possible_widths(case):
        there = {size: len(by_size.get(int(size * width), ())) // count for size, count in sizes.items()}
        number = 0
        while _is_whole(sizes, [size for size in sizes if there[size] > number]):
            number += 1
        # In another type a master copy or a cast one may be there; that there are several is chance.
        if number and (width == 1.0 or number == 1):
            return _copies_of(sizes, by_size, width, number)
    return None


def _copies_of(sizes: Counter[int], by_size: dict[int, list[int]], width: float, number: int) -> _Copies:
    """Return the blocks that repeat given sizes so often."""
    rows = [row for size in sizes for row in by_size.get(int(size * width), [])[: number * sizes[size]]]
    sets = "A second set of tensors" if number == 1 else f"{number} more sets of tensors"
    return _Copies(
        rows=np.array(sorted(rows), np.int64),
        number=number,
        what=f"{sets}{_AS_LARGE}{_WIDTHS[width]}",
        change="",
        is_by_size=True,
    )


def _is_whole(sizes: Counter[int], repeated: list[int]) -> bool:
    """Return whether blocks that repeat some of the sizes repeat nearly all, by bytes and by number."""
    num_bytes, number = sum(size * sizes[size] for size in repeated), sum(sizes[size] for size in repeated)
    total = sum(size * count for size, count in sizes.items())
    return len(repeated) >= _LEAST_SIZES and num_bytes >= _WHOLE * total and number >= _WHOLE * sizes.total()


def _possible_widths(case: Case) -> list[float]:
    """Return how wide a copy may be, given the type of most parameters: twice where they have 16 bits, half if not."""
    owners, rank = case.history.rank.table("owners"), case.history.rank
    types: Counter[int] = Counter()
    for row in _named(case, _last_sweep(case), Category.PARAMETER).tolist():
        types[int(owners["dtype"][row])] += int(owners["tensor_bytes"][row])
    commonest = rank.text(types.most_common(1)[0][0]) if types else None
    return [1.0, *([2.0] if commonest in _WIDENED else [0.5] if commonest in _NARROWED else [])]


def _lasting(case: Case, moment: int) -> IntArray:
    """Return what nobody owns, was made outside the passes, and is there at a moment, and before training or longer."""
    steps = case.history.rank.table("steps")
    ends = case.history.moments.at_times(np.sort(steps["end_ns"][steps["end_ns"] > 0]))
    first = int(ends.min(initial=0))
    rows = case.lifetimes.live_at(moment)
    lifetimes = case.lifetimes
    num_ends = np.searchsorted(ends, lifetimes.in_use_end[rows]) - np.searchsorted(ends, lifetimes.start[rows])
    lasts = lifetimes.is_initial[rows] | (lifetimes.start[rows] <= first) | (num_ends >= 2)
    free = case.is_category(Category.UNKNOWN, Category.INPUT, Category.TEMPORARY)[rows]
    free &= case.history.attribution.owner_row[rows] < 0
    outside = ~case.in_phase(Phase.FORWARD, Phase.BACKWARD, Phase.RECOMPUTE, Phase.OPTIMIZER)[rows]
    found: IntArray = rows[lasts & free & outside]
    return found


def _of_earlier_rounds(case: Case) -> _Copies | None:
    """Return states for more parameters of each shape than get a gradient, with the parameters that get none."""
    owners, rank = case.history.rank.table("owners"), case.history.rank
    sweep = _last_sweep(case)
    trained = Counter(owners["shape"][_named(case, sweep, Category.GRADIENT)].tolist())
    states: dict[tuple[str, int], list[int]] = {}
    for row in _named(case, sweep, Category.OPTIMIZER_STATE).tolist():
        key = (rank.text(int(owners["name"][row])) or "").partition(" of ")[0]
        states.setdefault((key, int(owners["shape"][row])), []).append(row)
    of_trained = {key: rows for key, rows in states.items() if trained[key[1]]}
    own = sum(
        int(owners["tensor_bytes"][row]) for (_, shape), rows in of_trained.items() for row in rows[: trained[shape]]
    )
    # The newest optimizer is the last of them.
    idle = [row for (_, shape), rows in of_trained.items() for row in rows[: max(len(rows) - trained[shape], 0)]]
    idle_bytes = int(owners["tensor_bytes"][idle].sum())
    if not own or idle_bytes < _WHOLE * own:
        return None
    rows = np.array([*idle, *_without_gradient(case, sweep, trained)], np.int64)
    found = np.unique(case.history.attribution.allocation_of_owner[rows])
    number = round(idle_bytes / own)
    rounds = "an earlier round" if number == 1 else f"{number} earlier rounds"
    return _Copies(
        rows=found[found >= 0],
        number=number,
        what=f"Parameters and optimizer states of {rounds} are held beside those that train",
        change="Keep only the result of a round (its score, or a state_dict on the CPU): drop model, optimizer and "
        "trainer before the next one is made.",
        is_by_size=False,
    )


def _without_gradient(case: Case, sweep: IntArray, trained: Counter[int]) -> list[int]:
    """Return the parameters without a gradient that have the shape of one with it, rows of owners.

    In a sweep the gradient of a parameter has the row after it.
    """
    owners, rank = case.history.rank.table("owners"), case.history.rank
    parameter, gradient = (rank.string_id(one.value) for one in (Category.PARAMETER, Category.GRADIENT))
    category = np.append(owners["category"][sweep], -1)
    has_none = (category[:-1] == parameter) & (category[1:] != gradient)
    return [row for row in sweep[has_none].tolist() if trained[int(owners["shape"][row])]]
