"""By how much each place of a program grew in each step, and which of them keep growing.

In: `DeviceHistory` with steps. Out: `Growth`, `Growing`. How that is judged stands in `leaks`.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from memtrace.analysis.attribution.attribute import CATEGORIES
from memtrace.analysis.device.device_history import DeviceHistory
from memtrace.analysis.device.stacks import frames_of
from memtrace.analysis.device.steps import StepSpan, step_spans
from memtrace.analysis.diagnosis.grown_bytes import inputs_grow, not_owned
from memtrace.analysis.diagnosis.leak_places import LeakPlaces, distinct, leak_places, phases_of
from memtrace.schema.frames import is_python
from memtrace.schema.names import Category
from memtrace.store.columns import NULL, IntArray

_MADE_ONCE = (Category.WORKSPACE, Category.PARAMETER, Category.BUFFER, Category.OPTIMIZER_STATE)
_MIN_STEPS = 3
"""Steps in which a place has to have grown; over a gap that the total bears out, one less."""
_REPLACED_SHARE = 0.1
"""A place that loses more than this share of what it gains replaces things of different sizes."""
_NO_CHANCE = 5
"""Five sizes in a row that rise are one in 120 where batches vary."""
_ALIKE = 0.1
"""How unlike the amounts may be by which something grows that is put together anew with more in each step."""
_LEAST_DROPPED = 2
"""Steps whose things are freed together: of one, each step frees that of the step before."""
_FEW_STEPS = 4
"""Of so few judged steps each must show growth; of more, a leak in every n-th step is one as well."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Growth:
    """By how much each place grew in each step."""

    spans: tuple[StepSpan, ...]
    """Steps that were recorded to their end."""
    judged: tuple[int, ...]
    """Positions in `spans` of the steps whose growth is known."""
    places: LeakPlaces
    born: IntArray
    """For each allocation of `places` the first step end at which it is live, a position in `spans`."""
    num_bytes: IntArray
    """A row a place, a column a step of `spans`: its bytes at the end less those at the end of the step before."""
    is_replaced: npt.NDArray[np.bool_]
    """Whether nothing that a place made was still there a step later: only its size can have grown."""

    def rows_of(self, history: DeviceHistory, places: Collection[int]) -> tuple[IntArray, IntArray]:
        """Return the allocations of some places that may pile up, and when each was born.

        A line also makes what its first call alone needs: workspaces of libraries, parameters that are made late.
        """
        rows, codes = self.places.rows, [CATEGORIES.index(one) for one in _MADE_ONCE]
        chosen = np.isin(self.places.of_row, list(places)) & ~np.isin(history.attribution.category[rows], codes)
        return np.flatnonzero(chosen), self.born[chosen]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Growing:
    """The places that grow in each step that can be judged."""

    growth: Growth
    """Of all places."""
    judged: dict[int, list[int]]
    """For each growing place the steps that it is judged by, positions in the spans."""
    goes_on: bool
    """Whether over each gap in the recording the total grew accordingly; else things were dropped there."""

    def rate(self, place: int) -> int:
        """Return by how many bytes a step a growing place grows."""
        steps = self.judged[place]
        return int(self.growth.num_bytes[place, steps].sum()) // len(steps)


def find_growing(history: DeviceHistory) -> Growing | None:
    """Return what grows from step to step; `None` where nothing does, or too few steps were recorded to tell."""
    growth = growth_of(history)
    if growth is None:
        return None
    places = np.flatnonzero((growth.num_bytes[:, list(growth.judged)] > 0).sum(axis=1) >= _MIN_STEPS - 1)
    if not len(places):
        return None
    blind = blind_phases(history, growth)
    freed_unplaced = _freed_unplaced(history, growth)
    judged = {place: _judged_for(growth, blind, freed_unplaced, place) for place in places.tolist()}
    rates = _rates_over_gaps(history, growth.spans)
    growing = [
        place
        for place in judged
        if _grows(values := growth.num_bytes[place, judged[place]], has_gaps=bool(rates))
        and not (growth.is_replaced[place] and _is_chance(values))
    ]
    if growing and growth.is_replaced[growing].any() and inputs_grow(history, [one.step for one in growth.spans]):
        # What is made anew from a larger batch is larger, and gone a step later.
        growing = [place for place in growing if not growth.is_replaced[place]]
    found = Growing(growth=growth, judged={place: judged[place] for place in growing}, goes_on=True)
    total = sum(map(found.rate, growing))
    goes_on = all(2 * rate >= total for rate in rates) and not _is_dropped_later(history, growth, total)
    return dataclasses.replace(found, goes_on=goes_on) if growing else None


def growth_of(history: DeviceHistory) -> Growth | None:
    """Return by how much each place grew in each step; `None` where too few steps were recorded."""
    steps = history.rank.table("steps")
    all_spans = step_spans(history).values()
    spans = tuple(span for span in all_spans if span.recorded and steps["end_ns"][span.row] != NULL)
    judged = tuple(at for at in range(1, len(spans)) if spans[at].step >= 2 and _follows(history, spans, at))
    if len(judged) < _MIN_STEPS - 1:
        return None
    ends = np.array([span.last for span in spans], np.int64)
    born = np.searchsorted(ends, history.lifetimes.start)
    died = np.searchsorted(ends, history.lifetimes.in_use_end)
    rows, born = not_owned(history, [span.step for span in spans], born, died)
    places = leak_places(history, rows)
    num_bytes = np.zeros((len(places.phase), len(spans) + 1), np.int64)
    np.add.at(num_bytes, (places.of_row, born[rows]), history.lifetimes.size_bytes[rows])
    np.subtract.at(num_bytes, (places.of_row, died[rows]), history.lifetimes.size_bytes[rows])
    return Growth(
        spans=spans,
        judged=judged,
        places=places,
        born=born[rows],
        num_bytes=num_bytes[:, :-1],
        is_replaced=_replaced(history, places, np.stack([born[rows], died[rows]]), judged),
    )


def _replaced(
    history: DeviceHistory, places: LeakPlaces, born_and_died: IntArray, judged: Sequence[int]
) -> npt.NDArray[np.bool_]:
    """Return for each place whether most of what it made was gone a step later, as far as that was recorded."""
    born, died = born_and_died
    followed = np.isin(born + 1, judged) & ~history.lifetimes.is_initial[places.rows]
    gone, stayed = (np.zeros(len(places.phase), np.int64) for _ in range(2))
    sizes = history.lifetimes.size_bytes[places.rows]
    for total, chosen in ((gone, followed & (died <= born + 1)), (stayed, followed & (died > born + 1))):
        np.add.at(total, places.of_row[chosen], sizes[chosen])
    return gone > stayed


def _follows(history: DeviceHistory, spans: Sequence[StepSpan], at: int) -> bool:
    """Return whether everything from the end of the step before is in the history."""
    starts = history.moments.epoch_starts()
    before, span = spans[at - 1], spans[at]
    same_epoch = np.searchsorted(starts, before.last, side="right") == np.searchsorted(starts, span.last, side="right")
    return span.step == before.step + 1 and bool(same_epoch)


def blind_phases(history: DeviceHistory, growth: Growth) -> set[tuple[int, str | None]]:
    """Return the steps, as positions in `spans`, and phases in which things were allocated, but no line recorded."""
    ends = np.array([span.last for span in growth.spans], np.int64)
    lifetimes = history.lifetimes
    rows = np.flatnonzero(~lifetimes.is_initial)
    step, has_stack = np.searchsorted(ends, lifetimes.start[rows]), _have_lines(history, lifetimes.stack[rows])
    phase = phases_of(history, rows)
    first, of_row = distinct(step, phase)
    unseen = np.ones(len(first), np.bool_)
    unseen[of_row[has_stack]] = False
    places = zip(step[first[unseen]].tolist(), phase[first[unseen]].tolist(), strict=True)
    return {(at, history.rank.text(one)) for at, one in places}


def _have_lines(history: DeviceHistory, stacks: IntArray) -> npt.NDArray[np.bool_]:
    """Return which stacks reach a line of Python, where any does: steps without frames still name operators."""
    each, of_row = np.unique(stacks, return_inverse=True)
    known = [one != NULL and any(map(is_python, frames_of(history.rank, one))) for one in each.tolist()]
    return np.array(known, np.bool_)[of_row.reshape(-1)] if any(known) else stacks != NULL


def is_blind(growth: Growth, blind: set[tuple[int, str | None]], place: int, at: int) -> bool:
    """Return whether what a place made in a step, a position in `spans`, is not known by its place."""
    return bool(growth.places.stack[place] != NULL) and (at, growth.places.phase[place]) in blind


def _freed_unplaced(history: DeviceHistory, growth: Growth) -> IntArray:
    """Return the bytes that each step frees of what was there as the recording went on, of whichever place it was."""
    ends = np.array([span.last for span in growth.spans], np.int64)
    rows = growth.places.rows[history.lifetimes.is_initial[growth.places.rows]]
    rows = rows[history.lifetimes.stack[rows] == NULL]
    at = np.searchsorted(ends, history.lifetimes.in_use_end[rows])
    freed = np.bincount(at, weights=history.lifetimes.size_bytes[rows], minlength=len(ends) + 1)
    return freed[: len(ends)].astype(np.int64)


def _judged_for(growth: Growth, blind: set[tuple[int, str | None]], freed_unplaced: IntArray, place: int) -> list[int]:
    """Return the judged steps of a place: if its stack tells it, those in which its phase was not blind, or it fell.

    What a blind step makes is not known by its place; what it frees is. Nor is a step that frees what several steps
    made, of no known place: what this one made may be among it, so that it is no sign that the place has stopped.
    """
    values = growth.num_bytes[place]
    gains = values[list(growth.judged)]
    gain = int(np.median(gains[gains > 0]))
    is_hidden = (values <= 0) & (freed_unplaced >= _LEAST_DROPPED * gain) & (growth.places.stack[place] != NULL)
    return [
        at for at in growth.judged if (not is_blind(growth, blind, place, at) or values[at] < 0) and not is_hidden[at]
    ]


def _grows(values: IntArray, *, has_gaps: bool) -> bool:
    """Return whether a place that grew by so many bytes in the steps it is judged by keeps growing."""
    rises, gained = values > 0, int(values[values > 0].sum())
    if len(values) <= _FEW_STEPS and not rises.all():
        return False
    if not rises[-(-2 * len(values) // 3) :].any() and len(values) > _FEW_STEPS:
        return False
    if gained - int(values.sum()) > _REPLACED_SHARE * gained:
        return False
    return int(rises.sum()) >= _MIN_STEPS - (1 if has_gaps else 0)


def _is_chance(values: IntArray) -> bool:
    """Return whether sizes of what is made anew in each step may have risen by chance: few, and by unlike amounts."""
    rises = values[values > 0]
    return len(rises) < _NO_CHANCE and int(rises.max() - rises.min()) > _ALIKE * int(rises.max())


def _is_dropped_later(history: DeviceHistory, growth: Growth, rate: int) -> bool:
    """Return whether a recorded step behind a gap frees what the steps in it made, if they grew like the others."""
    lifetimes, rows = history.lifetimes, growth.places.rows
    starts = history.moments.epoch_starts()
    for before, after in itertools.pairwise(growth.spans):
        num_missing = after.step - before.step - 1
        if before.step < 1 or num_missing < _LEAST_DROPPED:
            continue
        begin = int(starts[starts <= after.last].max())
        older = rows[lifetimes.is_initial[rows] & (lifetimes.start[rows] == begin)]
        stops = np.array([span.last for span in growth.spans if span.step >= after.step], np.int64)
        at = np.searchsorted(stops, lifetimes.in_use_end[older])
        # What is there at the end of all, nobody freed.
        freed = np.bincount(at, weights=lifetimes.size_bytes[older], minlength=len(stops) + 1)[:-1]
        if len(freed) and 2 * freed.max() >= rate * num_missing > 0:
            return True
    return False


def _rates_over_gaps(history: DeviceHistory, spans: Sequence[StepSpan]) -> list[float]:
    """Return by how many bytes a step the total grew over each stretch of steps that was not recorded."""
    requested = history.levels.requested
    return [
        float(requested[after.last] - requested[before.last]) / (after.step - before.step)
        for before, after in itertools.pairwise(spans)
        if before.step >= 1 and after.step > before.step + 1
    ]
