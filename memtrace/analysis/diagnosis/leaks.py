"""What grows from step to step: places of the program whose allocations survive each step in ever larger number.

In: `DeviceHistory` with steps. Out: `Pile`s, the fastest growing first: each a `Leak` with the places that are it.

What is live at the end of a step is followed by the place that asked for it: its stack, or without one its phase and
module. In a healthy run a place replaces what it made in the step before (gradients, the last logits, a queue that is
full), and its bytes at step ends stay level. A place leaks if they rise in every step that can be judged:

    step            2     3     4     5
    gradients       0     0     0     0        bytes at its end, less those at the end of the step before
    kept losses   +12   +12   +12   +12        a leak

Steps 0 and 1 are warm-up. A step is judged if the one before it was recorded as well; over a gap in the recording only
the total at step ends is known, and that has to have grown accordingly. What a `deque` with a `maxlen` holds is no
leak, full or not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from memtrace.analysis.attribution.attribute import CATEGORIES
from memtrace.analysis.device.device_history import DeviceHistory
from memtrace.analysis.device.keepers import KeptAllocations, kept_allocations
from memtrace.analysis.device.marks import modules_of
from memtrace.analysis.device.shared_line import shared_line
from memtrace.analysis.device.steps import StepSpan
from memtrace.analysis.diagnosis.grown_bytes import piled_up
from memtrace.analysis.diagnosis.growth import Growing, find_growing
from memtrace.analysis.results.report import Leak
from memtrace.schema.names import Category, Phase
from memtrace.store.columns import NULL, IntArray

_MIN_BYTES_A_STEP = 4096
"""Less is a number that is noted in each step: after a million steps it would still be small."""
_STEPS_TO_DOUBLE = 100_000
"""What would not double the peak in as many steps is left out."""
_KEPT_BY_A_GRAPH = (Category.INPUT, Category.ACTIVATION)
_GRAPH_MODULES = 3
"""Modules of one forward whose outputs survive: an output that somebody keeps is one."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Pile:
    """A leak, and where its allocations are found."""

    leak: Leak
    growing: Growing
    places: tuple[int, ...]
    """Places that grow."""


def find_piles(history: DeviceHistory, *, capacity_bytes: int | None = None) -> tuple[Pile, ...]:
    """Return what grows from step to step; nothing where the history holds too few steps to tell."""
    growing = find_growing(history)
    if growing is None or not growing.goes_on:
        return ()
    kept = kept_allocations(history)
    least = max(_MIN_BYTES_A_STEP, int(history.levels.requested.max()) // _STEPS_TO_DOUBLE)
    found = []
    for group in _together(history, growing):
        leak = _kept_by(_leak(history, growing, group, capacity_bytes), growing, group, kept)
        if leak.bytes_per_step >= least and not _is_filling(leak):
            found.append(Pile(leak=leak, growing=growing, places=tuple(group)))
    return tuple(sorted(found, key=lambda one: -one.leak.bytes_per_step))


def _is_filling(leak: Leak) -> bool:
    """Return whether it ends by itself: a queue that holds only so many is not full yet."""
    return leak.keeper is not None and leak.keeper.kind == "bounded"


def _together(history: DeviceHistory, growing: Growing) -> list[list[int]]:
    """Return the places by phase, each group one leak; a batch that a graph keeps belongs to the forward."""
    groups: dict[str, list[int]] = {}
    growth = growing.growth
    places = growth.places
    can_be_kept = np.isin(
        history.attribution.category[places.rows], [CATEGORIES.index(one) for one in _KEPT_BY_A_GRAPH]
    )
    is_judged = np.isin(growth.born, growth.judged)
    has_forward = any(places.phase[place] == Phase.FORWARD.value for place in growing.judged)
    for place in growing.judged:
        phase, own = places.phase[place] or "", is_judged & (places.of_row == place)
        if has_forward and phase in ("", Phase.DATA.value, Phase.OTHER.value) and can_be_kept[own].all():
            phase = Phase.FORWARD.value
        groups.setdefault(phase, []).append(place)
    return [groups[phase] for phase in sorted(groups)]


def _leak(history: DeviceHistory, growing: Growing, group: Sequence[int], capacity_bytes: int | None) -> Leak:
    """Return the leak that some growing places of one phase are, each with the steps that it is judged by."""
    growth = growing.growth
    lifetimes, places = history.lifetimes, growth.places
    judged = sorted({at for place in group for at in growing.judged[place]})
    rate = sum(map(growing.rate, group))
    chosen = np.isin(places.of_row, group) & np.isin(growth.born, judged)
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
        first_bytes=_made_by(history, growing, group, growth.spans.index(first)),
        steps_until_full=_steps_until_full(history, last, rate, capacity_bytes),
        where=shared_line(
            history.rank, zip(lifetimes.stack[rows].tolist(), lifetimes.size_bytes[rows].tolist(), strict=True)
        ),
    )


def _made_by(history: DeviceHistory, growing: Growing, group: Sequence[int], at: int) -> int:
    """Return the bytes that some places made in a step, a position in the spans, and that outlived it."""
    chosen, born = growing.growth.rows_of(history, group)
    sizes: IntArray = history.lifetimes.size_bytes[growing.growth.places.rows[chosen]]
    return int(sizes[born == at].sum())


def _kept_by(leak: Leak, growing: Growing, group: Sequence[int], kept: KeptAllocations | None) -> Leak:
    """Return a leak with what keeps it; the line that feeds that comes before the one that makes what it is fed."""
    if kept is None:
        return leak
    growth, judged = growing.growth, {at for place in group for at in growing.judged[place]}
    chosen = np.isin(growth.places.of_row, list(group)) & np.isin(growth.born, sorted(judged))
    keeper = kept.keeper_of(growth.places.rows[chosen])
    if keeper is None and growth.is_replaced[list(group)].any():
        keeper = kept.growing_keeper(leak.bytes_per_step)
    if keeper is None:
        return leak
    return replace(leak, keeper=keeper, where=keeper.fed_at or leak.where)


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
