"""What grows from step to step: places of the program whose allocations survive each step in ever larger number.

In: `DeviceHistory` with steps. Out: `Leak`s, the fastest growing first.

What is live at the end of a step is followed by the place that asked for it: its stack, or without one its phase and
module. In a healthy run a place replaces what it made in the step before (gradients, the last logits, a queue that is
full), and its bytes at step ends stay level. A place leaks if they rise in every step that can be judged:

    step            2     3     4     5
    gradients       0     0     0     0        bytes at its end, less those at the end of the step before
    kept losses   +12   +12   +12   +12        a leak

Steps 0 and 1 are warm-up. A step is judged if the one before it was recorded as well; over a gap in the recording only
the total at step ends is known, and that has to have grown accordingly.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from memtrace.analysis.attribution.attribute import CATEGORIES
from memtrace.analysis.device.device_history import DeviceHistory
from memtrace.analysis.device.keepers import KeptAllocations, kept_allocations
from memtrace.analysis.device.marks import modules_of
from memtrace.analysis.device.shared_line import shared_line
from memtrace.analysis.device.steps import StepSpan, step_spans
from memtrace.analysis.diagnosis.leak_places import LeakPlaces, distinct, leak_places, phases_of
from memtrace.analysis.results.report import Leak
from memtrace.schema.names import Category, Phase
from memtrace.store.columns import NULL, IntArray

_MIN_STEPS = 3
"""Steps in which a place has to have grown; over a gap that the total bears out, one less."""
_MIN_BYTES_A_STEP = 4096
"""Less is a number that is noted in each step: after a million steps it would still be small."""
_STEPS_TO_DOUBLE = 100_000
"""What would not double the peak in as many steps is left out."""
_REPLACED_SHARE = 0.1
"""A place that loses more than this share of what it gains replaces things of different sizes."""
_FEW_STEPS = 4
"""Of so few judged steps each must show growth; of more, a leak in every n-th step is one as well."""
_KEPT_BY_A_GRAPH = (Category.INPUT, Category.ACTIVATION)
_GRAPH_MODULES = 3
"""Modules of one forward whose outputs survive: an output that somebody keeps is one."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Growth:
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


def find_leaks(history: DeviceHistory, *, capacity_bytes: int | None = None) -> tuple[Leak, ...]:
    """Return what grows from step to step; nothing where the history holds too few steps to tell."""
    growth = _growth(history)
    if growth is None:
        return ()
    kept = kept_allocations(history)
    places = np.flatnonzero((growth.num_bytes[:, list(growth.judged)] > 0).sum(axis=1) >= _MIN_STEPS - 1)
    if not len(places):
        return ()
    blind = _blind(history, growth)
    judged = {place: _judged_for(growth, blind, place) for place in places.tolist()}
    growing = [place for place in judged if _grows(history, growth.spans, growth.num_bytes[place, judged[place]])]
    groups = _together(history, growth, growing)
    leaks = [
        _kept_by(_leak(history, growth, {place: judged[place] for place in group}, capacity_bytes), growth, group, kept)
        for group in groups
    ]
    least = max(_MIN_BYTES_A_STEP, int(history.levels.requested.max()) // _STEPS_TO_DOUBLE)
    return tuple(sorted((one for one in leaks if one.bytes_per_step >= least), key=lambda one: -one.bytes_per_step))


def _growth(history: DeviceHistory) -> _Growth | None:
    steps = history.rank.table("steps")
    all_spans = step_spans(history).values()
    spans = tuple(span for span in all_spans if span.recorded and steps["end_ns"][span.row] != NULL)
    judged = tuple(at for at in range(1, len(spans)) if spans[at].step >= 2 and _follows(history, spans, at))
    if len(judged) < _MIN_STEPS - 1:
        return None
    ends = np.array([span.last for span in spans], np.int64)
    born = np.searchsorted(ends, history.lifetimes.start)
    died = np.searchsorted(ends, history.lifetimes.in_use_end)
    rows = np.flatnonzero(born < died)
    places = leak_places(history, rows)
    num_bytes = np.zeros((len(places.phase), len(spans) + 1), np.int64)
    np.add.at(num_bytes, (places.of_row, born[rows]), history.lifetimes.size_bytes[rows])
    np.subtract.at(num_bytes, (places.of_row, died[rows]), history.lifetimes.size_bytes[rows])
    return _Growth(spans=spans, judged=judged, places=places, born=born[rows], num_bytes=num_bytes[:, :-1])


def _follows(history: DeviceHistory, spans: Sequence[StepSpan], at: int) -> bool:
    """Return whether everything from the end of the step before is in the history."""
    starts = history.moments.epoch_starts()
    before, span = spans[at - 1], spans[at]
    same_epoch = np.searchsorted(starts, before.last, side="right") == np.searchsorted(starts, span.last, side="right")
    return span.step == before.step + 1 and bool(same_epoch)


def _blind(history: DeviceHistory, growth: _Growth) -> set[tuple[int, str | None]]:
    """Return the steps, as positions in `spans`, and phases in which things were allocated, but no stack recorded."""
    ends = np.array([span.last for span in growth.spans], np.int64)
    lifetimes = history.lifetimes
    rows = np.flatnonzero(~lifetimes.is_initial)
    step, has_stack = np.searchsorted(ends, lifetimes.start[rows]), lifetimes.stack[rows] != NULL
    phase = phases_of(history, rows)
    first, of_row = distinct(step, phase)
    unseen = np.ones(len(first), np.bool_)
    unseen[of_row[has_stack]] = False
    places = zip(step[first[unseen]].tolist(), phase[first[unseen]].tolist(), strict=True)
    return {(at, history.rank.text(one)) for at, one in places}


def _judged_for(growth: _Growth, blind: set[tuple[int, str | None]], place: int) -> list[int]:
    """Return the judged steps of a place: if its stack tells it, those in which its phase was not blind."""
    if growth.places.stack[place] == NULL:
        return list(growth.judged)
    return [at for at in growth.judged if (at, growth.places.phase[place]) not in blind]


def _grows(history: DeviceHistory, spans: Sequence[StepSpan], values: IntArray) -> bool:
    """Return whether a place that grew by so many bytes in the steps it is judged by keeps growing."""
    rises, gained = values > 0, int(values[values > 0].sum())
    if len(values) <= _FEW_STEPS and not rises.all():
        return False
    if not rises[-(-2 * len(values) // 3) :].any() and len(values) > _FEW_STEPS:
        return False
    if gained - int(values.sum()) > _REPLACED_SHARE * gained:
        return False
    rates = _rates_over_gaps(history, spans)
    if any(2 * rate < gained / len(values) for rate in rates):
        return False
    return int(rises.sum()) >= _MIN_STEPS - (1 if rates else 0)


def _rates_over_gaps(history: DeviceHistory, spans: Sequence[StepSpan]) -> list[float]:
    """Return by how many bytes a step the total grew over each stretch of steps that was not recorded."""
    requested = history.levels.requested
    return [
        float(requested[after.last] - requested[before.last]) / (after.step - before.step)
        for before, after in itertools.pairwise(spans)
        if before.step >= 1 and after.step > before.step + 1
    ]


def _together(history: DeviceHistory, growth: _Growth, growing: Sequence[int]) -> list[list[int]]:
    """Return the places by phase, each group one leak; a batch that a graph keeps belongs to the forward."""
    groups: dict[str, list[int]] = {}
    places = growth.places
    can_be_kept = np.isin(
        history.attribution.category[places.rows], [CATEGORIES.index(one) for one in _KEPT_BY_A_GRAPH]
    )
    is_judged = np.isin(growth.born, growth.judged)
    has_forward = any(places.phase[place] == Phase.FORWARD.value for place in growing)
    for place in growing:
        phase, own = places.phase[place] or "", is_judged & (places.of_row == place)
        if has_forward and phase in ("", Phase.DATA.value, Phase.OTHER.value) and can_be_kept[own].all():
            phase = Phase.FORWARD.value
        groups.setdefault(phase, []).append(place)
    return [groups[phase] for phase in sorted(groups)]


def _leak(history: DeviceHistory, growth: _Growth, group: dict[int, list[int]], capacity_bytes: int | None) -> Leak:
    """Return the leak that some growing places of one phase are, each with the steps that it is judged by."""
    lifetimes, places = history.lifetimes, growth.places
    judged = sorted({at for steps in group.values() for at in steps})
    rate = sum(int(growth.num_bytes[place, steps].sum()) // len(steps) for place, steps in group.items())
    chosen = np.isin(places.of_row, list(group)) & np.isin(growth.born, judged)
    rows = places.rows[chosen]
    counts = np.zeros(len(CATEGORIES), np.int64)
    np.add.at(counts, history.attribution.category[rows].astype(np.intp), lifetimes.size_bytes[rows])
    modules = [module for module in np.unique(modules_of(history, rows)).tolist() if module != NULL]
    phases, last = {places.phase[place] for place in group}, growth.spans[-1]
    phase = Phase.FORWARD.value if Phase.FORWARD.value in phases else phases.pop()
    return Leak(
        bytes_per_step=rate,
        allocations_per_step=-(-len(rows) // len(judged)),
        steps=tuple(growth.spans[at].step for at in judged),
        phase=phase,
        category=CATEGORIES[int(counts.argmax())].value,
        num_modules=len(modules),
        cause=_cause(phase, int(counts.argmax()), len(modules), len(group)),
        live_bytes=_live_bytes(growth, rate),
        steps_until_full=_steps_until_full(history, last, rate, capacity_bytes),
        where=shared_line(
            history.rank, zip(lifetimes.stack[rows].tolist(), lifetimes.size_bytes[rows].tolist(), strict=True)
        ),
    )


def _kept_by(leak: Leak, growth: _Growth, group: Sequence[int], kept: KeptAllocations | None) -> Leak:
    """Return a leak with what keeps it, and where nothing else tells its line, with the line that feeds that."""
    if kept is None:
        return leak
    keeper = kept.keeper_of(growth.places.rows[np.isin(growth.places.of_row, list(group))])
    if keeper is None:
        return leak
    has_line = keeper.where is not None and keeper.where["line"] is not None
    return replace(leak, keeper=keeper, where=keeper.where if leak.where is None and has_line else leak.where)


def _cause(phase: str | None, category: int, num_modules: int, num_places: int) -> str:
    """Return the usual cause of such a leak."""
    if category == CATEGORIES.index(Category.GRADIENT) or phase == Phase.BACKWARD.value:
        return "gradients"
    if phase == Phase.FORWARD.value:
        is_graph = num_modules >= _GRAPH_MODULES or (num_modules == 0 and num_places >= _GRAPH_MODULES)
        return "graph" if is_graph else "outputs"
    return "container"


def _live_bytes(growth: _Growth, rate: int) -> int:
    """Return the bytes that have piled up at the end of the last step, at this rate since step 1."""
    return rate * (growth.spans[-1].step - 1)


def _steps_until_full(history: DeviceHistory, last: StepSpan, rate: int, capacity_bytes: int | None) -> int | None:
    """Return how many more steps as the last one the device has room for; 0 if none."""
    if capacity_bytes is None or rate <= 0:
        return None
    levels = history.levels
    level = levels.requested if levels.allocated is None else levels.allocated
    room = capacity_bytes - int(level[last.first : last.last + 1].max())
    return max(room // rate, 0)
