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
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from memtrace.analysis.attribution.attribute import CATEGORIES
from memtrace.analysis.device.device_history import DeviceHistory
from memtrace.analysis.device.marks import modules_of
from memtrace.analysis.device.shared_line import shared_line
from memtrace.analysis.device.stacks import frames_of
from memtrace.analysis.device.steps import StepSpan, step_spans
from memtrace.analysis.diagnosis.grown_bytes import inputs_grow, not_owned, piled_up
from memtrace.analysis.diagnosis.leak_places import LeakPlaces, distinct, leak_places, phases_of
from memtrace.analysis.results.report import Leak
from memtrace.schema.frames import is_python
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
    is_replaced: npt.NDArray[np.bool_]
    """Whether nothing that a place made was still there a step later: only its size can have grown."""


def find_leaks(history: DeviceHistory, *, capacity_bytes: int | None = None) -> tuple[Leak, ...]:
    """Return what grows from step to step; nothing where the history holds too few steps to tell."""
    growth = _growth(history)
    if growth is None:
        return ()
    places = np.flatnonzero((growth.num_bytes[:, list(growth.judged)] > 0).sum(axis=1) >= _MIN_STEPS - 1)
    if not len(places):
        return ()
    blind = _blind(history, growth)
    judged = {place: _judged_for(growth, blind, place) for place in places.tolist()}
    rates = _rates_over_gaps(history, growth.spans)
    growing = [place for place in judged if _grows(growth.num_bytes[place, judged[place]], has_gaps=bool(rates))]
    if growing and growth.is_replaced[growing].any() and inputs_grow(history, [one.step for one in growth.spans]):
        # What is made anew from a larger batch is larger, and gone a step later.
        growing = [place for place in growing if not growth.is_replaced[place]]
    if any(2 * rate < sum(_rate(growth, place, judged[place]) for place in growing) for rate in rates):
        return ()
    groups = _together(history, growth, growing)
    leaks = [_leak(history, growth, {place: judged[place] for place in group}, capacity_bytes) for group in groups]
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
    rows, born = not_owned(history, [span.step for span in spans], born, died)
    places = leak_places(history, rows)
    num_bytes = np.zeros((len(places.phase), len(spans) + 1), np.int64)
    np.add.at(num_bytes, (places.of_row, born[rows]), history.lifetimes.size_bytes[rows])
    np.subtract.at(num_bytes, (places.of_row, died[rows]), history.lifetimes.size_bytes[rows])
    return _Growth(
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


def _blind(history: DeviceHistory, growth: _Growth) -> set[tuple[int, str | None]]:
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


def _judged_for(growth: _Growth, blind: set[tuple[int, str | None]], place: int) -> list[int]:
    """Return the judged steps of a place: if its stack tells it, those in which its phase was not blind."""
    if growth.places.stack[place] == NULL:
        return list(growth.judged)
    return [at for at in growth.judged if (at, growth.places.phase[place]) not in blind]


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


def _rate(growth: _Growth, place: int, judged: Sequence[int]) -> int:
    """Return by how many bytes a step a place grows."""
    return int(growth.num_bytes[place, judged].sum()) // len(judged)


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
    rate = sum(_rate(growth, place, steps) for place, steps in group.items())
    chosen = np.isin(places.of_row, list(group)) & np.isin(growth.born, judged)
    rows = places.rows[chosen]
    counts = np.zeros(len(CATEGORIES), np.int64)
    np.add.at(counts, history.attribution.category[rows].astype(np.intp), lifetimes.size_bytes[rows])
    modules = [module for module in np.unique(modules_of(history, rows)).tolist() if module != NULL]
    phases, last = {places.phase[place] for place in group}, growth.spans[-1]
    first = next(span for span in growth.spans if span.step >= 1)
    phase = Phase.FORWARD.value if Phase.FORWARD.value in phases else phases.pop()
    return Leak(
        bytes_per_step=rate,
        allocations_per_step=-(-len(rows) // len(judged)),
        steps=tuple(growth.spans[at].step for at in judged),
        phase=phase,
        category=CATEGORIES[int(counts.argmax())].value,
        num_modules=len(modules),
        cause=_cause(phase, int(counts.argmax()), len(modules), len(group)),
        live_bytes=piled_up(history, first, last.last, last.step - first.step, rate),
        first_bytes=max(int(growth.num_bytes[list(group), growth.spans.index(first)].sum()), 0),
        steps_until_full=_steps_until_full(history, last, rate, capacity_bytes),
        where=shared_line(
            history.rank, zip(lifetimes.stack[rows].tolist(), lifetimes.size_bytes[rows].tolist(), strict=True)
        ),
    )


def _cause(phase: str | None, category: int, num_modules: int, num_places: int) -> str:
    """Return the usual cause of such a leak."""
    if category == CATEGORIES.index(Category.GRADIENT) or phase == Phase.BACKWARD.value:
        return "gradients"
    if phase == Phase.FORWARD.value:
        is_graph = num_modules >= _GRAPH_MODULES or (num_modules == 0 and num_places >= _GRAPH_MODULES)
        return "graph" if is_graph else "outputs"
    return "container"


def _steps_until_full(history: DeviceHistory, last: StepSpan, rate: int, capacity_bytes: int | None) -> int | None:
    """Return how many more steps as the last one the device has room for; 0 if none."""
    if capacity_bytes is None or rate <= 0:
        return None
    levels = history.levels
    level = levels.requested if levels.allocated is None else levels.allocated
    room = capacity_bytes - int(level[last.first : last.last + 1].max())
    return max(room // rate, 0)
