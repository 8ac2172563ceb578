"""The figures that a budget may name, read off the report of one rank.

In: a name and `RankReport`s. Out: `Figure`, or an error that says why the rank does not have it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from memtrace.analysis.results.report import RankReport, State
from memtrace.errors import MemtraceError
from memtrace.schema.names import Category

MOMENTS = ("peak", "first_step_peak", "steady_peak", "end", "step_end")
"""States of a rank that a budget may name; `step_end` is the fullest end of a step."""
RESERVED = "reserved"
CATEGORIES = tuple(one.value for one in Category)
NO_VALUE = "budget-without-value"
NO_HISTORY = "holds no history of allocations; the budget `end` is for the state in it"


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One number of one rank."""

    rank: RankReport
    num_bytes: int
    measures: str
    """allocated, requested or reserved."""
    state: State | None
    """Where it was read; `None` for reserved bytes, which have a maximum of their own."""
    exact_bytes: int | None = None
    """Of a category: the bytes that an owner or a hook decided."""


def figure_of(name: str, rank: RankReport, ranks: Sequence[RankReport]) -> Figure:
    """Return one figure of a rank; raises `MemtraceError` where the rank does not have it."""
    if name == RESERVED:
        if rank.max_reserved_bytes is None:
            raise missing(name, rank, "what an allocator reserves is not known of this device")
        return Figure(rank=rank, num_bytes=rank.max_reserved_bytes, measures=RESERVED, state=None)
    moment, category = parts_of(name)
    state = _state(moment, category, rank)
    if state is None:
        raise missing(name, rank, _WHY_NO_STATE[moment])
    if category is None:
        return _whole(name, rank, state)
    if not _is_attributed(category, rank, ranks):
        raise missing(name, rank, f"nothing in it was attributed to {category}")
    return Figure(
        rank=rank,
        num_bytes=state.by_category.get(category, 0),
        measures="requested",
        state=state,
        exact_bytes=state.exact_by_category.get(category, 0),
    )


_WHY_NO_STATE = {
    "peak": f"it {NO_HISTORY}",
    "first_step_peak": "no first step was recorded",
    "steady_peak": "no step after the first was recorded, and none could be predicted",
    "step_end": "no step was recorded to its end",
}


def _whole(name: str, rank: RankReport, state: State) -> Figure:
    num_bytes = _height(state, None)
    if num_bytes is None or (not num_bytes and not rank.num_allocations):
        raise missing(name, rank, "no memory was recorded")
    measures = "requested" if state.allocated_bytes is None else "allocated"
    return Figure(rank=rank, num_bytes=num_bytes, measures=measures, state=state)


def _state(moment: str, category: str | None, rank: RankReport) -> State | None:
    if moment != "step_end":
        return {
            "peak": rank.peak if has_peak(rank) else None,
            "first_step_peak": rank.first_step_peak,
            "steady_peak": rank.steady_state_peak,
            "end": rank.end,
        }[moment]
    ends = [one.end for one in rank.steps if one.end is not None]
    return max(ends, key=lambda end: _height(end, category) or 0, default=None)


def has_peak(rank: RankReport) -> bool:
    """Return whether the peak is one; without a history it is the only state that is known."""
    return rank.peak.event is not None or rank.peak.time_ns is not None


def _height(state: State, category: str | None) -> int | None:
    if category is not None:
        return state.by_category.get(category, 0)
    return state.requested_bytes if state.allocated_bytes is None else state.allocated_bytes


def _is_attributed(category: str, rank: RankReport, ranks: Sequence[RankReport]) -> bool:
    """Return whether no bytes of a category means that there were none, and not that nobody looked.

    So it is if this rank has bytes of it at any moment, or if another has and this one has bytes of some category.
    """
    own = _categories(rank)
    # Unattributed bytes are always counted.
    if category == Category.UNKNOWN.value or category in own:
        return True
    return bool(own) and any(category in _categories(other) for other in ranks)


def _categories(rank: RankReport) -> set[str]:
    """Return the categories that a rank has bytes of, at any moment that the report tells of."""
    states: list[State | None] = [rank.peak, rank.first_step_peak, rank.steady_state_peak, rank.end]
    states += [step.end for step in rank.steps]
    found = {name for state in states if state is not None for name, size in state.by_category.items() if size}
    found |= set(rank.timeline.by_category if rank.timeline is not None else ())
    return found - {Category.UNKNOWN.value}


def missing(name: str, rank: RankReport, why: str) -> MemtraceError:
    """Return the error that a rank does not have a figure."""
    hint = "look at `memtrace report` for what the trace holds, or take this budget out"
    return MemtraceError(f"{name} of {name_of(rank)} is not known: {why}", hint=hint, slug=NO_VALUE)


def parts_of(name: str) -> tuple[str, str | None]:
    """Return moment and category of a name.

    >>> parts_of("end"), parts_of("activation"), parts_of("end.parameter")
    (('end', None), ('peak', 'activation'), ('end', 'parameter'))
    """
    moment, dot, category = name.partition(".")
    if dot:
        return moment, category
    return ("peak", name) if name in CATEGORIES else (name, None)


def name_of(rank: RankReport) -> str:
    """Return rank and device for a sentence."""
    return rank.device if rank.rank is None else f"rank {rank.rank} ({rank.device})"
