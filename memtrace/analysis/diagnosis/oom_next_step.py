"""Why the step after one that fitted does not fit: what a step leaves behind, and what the next one needs with it.

In: `DeviceHistory`, and the step that failed. Out: `StepNeeds` of the step before it.

If the next step does the same again, then at each moment it has what this step had then, and of what stays whatever
this step had not made yet at that moment:

    step 1     parameters, activations │ states made
    step 2     parameters, states, activations          as in step 1, but with the states from the start
"""

from __future__ import annotations

import numpy as np

from memtrace.analysis.attribution.attribute import CATEGORIES
from memtrace.analysis.device.device_history import DeviceHistory
from memtrace.analysis.device.marks import phase_at
from memtrace.analysis.device.program_lines import place_of
from memtrace.analysis.device.steps import step_spans
from memtrace.analysis.results.diagnosis import Resident, StepNeeds
from memtrace.analysis.sentences.words import OUTPUTS
from memtrace.schema.names import Category, Phase
from memtrace.store.columns import NULL, IntArray

_MADE_ONCE = (Category.PARAMETER, Category.BUFFER, Category.OPTIMIZER_STATE)


def needs_after(history: DeviceHistory, failed_step: int | None) -> StepNeeds | None:
    """Return what the step before the one that failed needed and left; `None` if not all of it was recorded."""
    steps = history.rank.table("steps")
    spans = step_spans(history)
    whole = [span for span in spans.values() if span.step >= 1 and span.recorded and steps["end_ns"][span.row] != NULL]
    before = [span for span in whole if failed_step is not None and span.step == failed_step - 1]
    if not before:
        return None
    span = before[-1]
    first = _first_forward(history, span.step, span.first)
    begins = max(_first_forward(history, span.step + 1, span.last), span.last)
    lifetimes = history.lifetimes
    made = (lifetimes.start > first) & (lifetimes.start <= span.last)
    stays = np.flatnonzero(made & (lifetimes.in_use_end > begins))
    level = history.levels.requested if history.levels.allocated is None else history.levels.allocated
    own = level[first : span.last + 1]
    to_come = _to_come(history, stays, first, len(own))
    peak, worst = int(np.argmax(own)), int(np.argmax(own + to_come))
    return StepNeeds(
        step=span.step,
        peak_bytes=int(own[peak]),
        phase=_phase(history, first + peak),
        resident=_resident(history, stays),
        next_bytes=int(own[worst] + to_come[worst]),
        limited_by=_phase(history, first + worst),
    )


def _to_come(history: DeviceHistory, stays: IntArray, first: int, num_moments: int) -> IntArray:
    """Return, for each moment of the step, what the next step has by then that this one had not made yet.

    States are made once. Anything else is made anew, and the old one goes when the new one is there: at the moment of
    its making there are both.
    """
    lifetimes, category = history.lifetimes, history.attribution.category[stays]
    is_once = np.isin(category, [CATEGORIES.index(one) for one in _MADE_ONCE])
    made = np.zeros(num_moments + 1, np.int64)
    np.add.at(made, lifetimes.start[stays] - first + ~is_once, lifetimes.size_bytes[stays])
    to_come: IntArray = int(lifetimes.size_bytes[stays].sum()) - np.cumsum(made[:-1])
    return to_come


def _first_forward(history: DeviceHistory, step: int, otherwise: int) -> int:
    """Return the moment at which the first forward of a step begins."""
    phases = history.rank.table("phases")
    chosen = (phases["step"] == step) & (phases["phase"] == history.rank.string_id(Phase.FORWARD.value))
    return history.moments.at_time(int(phases["start_ns"][chosen].min())) if chosen.any() else otherwise


def _phase(history: DeviceHistory, moment: int) -> str | None:
    return phase_at(history, int(history.moments.time_ns[moment]))


def _resident(history: DeviceHistory, rows: IntArray) -> tuple[Resident, ...]:
    """Return some allocations by what they are for."""
    activation = CATEGORIES.index(Category.ACTIVATION)
    code = history.attribution.category[rows]
    groups = [
        (OUTPUTS if one == activation else CATEGORIES[one].value, rows[code == one]) for one in np.unique(code).tolist()
    ]
    found = [
        Resident(
            what=what,
            num_bytes=int(history.lifetimes.size_bytes[group].sum()),
            where=place_of(history, group),
        )
        for what, group in groups
    ]
    return tuple(sorted(found, key=lambda one: (-one.num_bytes, one.what)))
