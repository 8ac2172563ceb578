"""What makes the first step of a training different from those after it: a catalogue, each entry with its evidence.

In: `DeviceHistory`, the spans of its steps. Out: `FirstStepEffect`s, the largest first; only those that this very trace
shows, and of those measured in bytes only what is worth naming beside the peak of the first step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from memtrace.analysis.attribution.attribute import CATEGORIES
from memtrace.analysis.device.byte_levels import running_level
from memtrace.analysis.device.device_history import DeviceHistory
from memtrace.analysis.device.program_lines import place_of
from memtrace.analysis.device.steps import StepSpan
from memtrace.analysis.first_step.device_effects import device_effects
from memtrace.analysis.first_step.first_loop import FirstLoop, read_first_loop
from memtrace.analysis.first_step.gradient_fate import Gradients, gradient_fates
from memtrace.analysis.first_step.next_step import is_rebound, is_resident
from memtrace.analysis.first_step.one_time_allocations import one_time_allocations
from memtrace.analysis.first_step.steady_state import parameter_groups
from memtrace.analysis.first_step.two_peaks import knows_first_step
from memtrace.analysis.results.report import FirstStepEffect
from memtrace.schema.names import Category, Phase
from memtrace.store.columns import NULL, BoolArray, IntArray

_WORTH_SAYING_SHARE = 0.005
"""Share of the first step's peak below which an effect explains nothing."""
_FOREACH_SHARE = 0.5
"""Share of the parameters' bytes from which temporaries of an optimizer step are made of all of them at a time."""


def first_step_effects(history: DeviceHistory, spans: Mapping[int, StepSpan]) -> tuple[FirstStepEffect, ...]:
    """Return what makes the first step different; nothing where it is not that of training, or has no backward pass."""
    loop = read_first_loop(history, spans) if knows_first_step(history) else None
    if loop is None:
        return ()
    peak = int(history.levels.requested[loop.first : loop.last + 1].max())
    found = [*_training_effects(history, loop), *one_time_allocations(history, spans)]
    found += device_effects(history, spans)
    worth = (one for one in found if one.num_bytes is None or one.num_bytes >= _WORTH_SAYING_SHARE * peak)
    return tuple(sorted(worth, key=lambda one: (-(one.num_bytes or 0), one.slug)))


def _training_effects(history: DeviceHistory, loop: FirstLoop) -> Iterator[FirstStepEffect]:
    effects: tuple[Callable[[DeviceHistory, FirstLoop], FirstStepEffect | None], ...] = (
        _states_created,
        _gradients_created,
        _outputs_kept,
        _buckets_rebuilt,
        _foreach_temporaries,
    )
    for effect in effects:
        found = effect(history, loop)
        if found is not None and found.num_bytes:
            yield found


def _is(loop: FirstLoop, category: Category) -> BoolArray:
    chosen: BoolArray = loop.category == CATEGORIES.index(category)
    return chosen


def _bytes(history: DeviceHistory, rows: IntArray) -> int:
    return int(history.lifetimes.size_bytes[rows].sum())


def _evidence(history: DeviceHistory, rows: IntArray, **more: Any) -> dict[str, Any]:
    """Return number and place of some allocations, with further numbers."""
    return {"num_allocations": len(rows), "where": place_of(history, rows), **more}


def _states_created(history: DeviceHistory, loop: FirstLoop) -> FirstStepEffect | None:
    """Return the states that the optimizer made: in its first step, or before the first forward."""
    lifetimes = history.lifetimes
    states = _is(loop, Category.OPTIMIZER_STATE)
    before = np.flatnonzero(states & (lifetimes.start <= loop.first) & (lifetimes.in_use_end > loop.first))
    after = np.flatnonzero(states & (lifetimes.start <= loop.last) & (lifetimes.in_use_end > loop.last))
    # A step that replaces its states makes none anew.
    in_step = 2 * _bytes(history, before) < _bytes(history, after)
    when = "in the optimizer's first step" if in_step else "before the first forward"
    rows = np.setdiff1d(after, before) if in_step else before
    return FirstStepEffect(
        slug="states-created",
        title=f"Optimizer states are made {when} and stay",
        num_bytes=_bytes(history, rows),
        stays=True,
        evidence=_evidence(
            history, rows, made=when, optimizers=sorted({group.class_name for group in parameter_groups(history)})
        ),
    )


def _gradients_created(history: DeviceHistory, loop: FirstLoop) -> FirstStepEffect | None:
    """Return the gradients that the first backward pass made, and whether the next forward runs beside them."""
    lifetimes = history.lifetimes
    made = _is(loop, Category.GRADIENT) & (lifetimes.start > loop.first) & (lifetimes.start <= loop.last)
    rows = np.flatnonzero(made & (lifetimes.in_use_end > loop.last))
    fates = gradient_fates(history, loop)
    said = {
        Gradients.FREED: "and are freed before the next forward",
        Gradients.UNTIL_BACKWARD: "and are in use through the next forward",
        Gradients.KEPT: "and stay",
    }
    return FirstStepEffect(
        slug="gradients-created",
        title=f"Gradients are first made in the first backward pass{' ' + said[fates[0]] if len(fates) == 1 else ''}",
        num_bytes=_bytes(history, rows),
        stays=fates[0] is not Gradients.FREED if len(fates) == 1 else None,
        evidence=_evidence(history, rows, num_inferred=int(loop.inferred[rows].sum())),
    )


def _outputs_kept(history: DeviceHistory, loop: FirstLoop) -> FirstStepEffect | None:
    """Return what variables of the loop still hold when the next forward begins: logits, loss, the last batch."""
    lifetimes = history.lifetimes
    made = (lifetimes.start > loop.first) & (lifetimes.start <= loop.last)
    held = made & (lifetimes.in_use_end > loop.known_until)
    rows = np.flatnonzero(held & ~is_resident(loop) & ~_is(loop, Category.GRADIENT))
    rows = rows[is_rebound(history, rows)]
    return FirstStepEffect(
        slug="outputs-kept",
        title="Outputs of a step are still referenced while the next forward runs",
        num_bytes=_bytes(history, rows),
        stays=True if loop.sees_next_forward else None,
        evidence=_evidence(history, rows, seen_in_next_forward=loop.sees_next_forward),
    )


def _buckets_rebuilt(history: DeviceHistory, loop: FirstLoop) -> FirstStepEffect | None:
    """Return the communication buffers that were replaced in step 2: DDP rebuilds its buckets once, after step 1."""
    lifetimes, steps = history.lifetimes, history.rank.table("steps")
    communication = _is(loop, Category.COMMUNICATION)
    second = np.flatnonzero(steps["step"] == 2)
    if not communication.any() or not len(second):
        return None
    end_ns = int(steps["end_ns"][second[0]])
    last = history.last_moment if end_ns == NULL else history.moments.at_time(end_ns)
    end, start = lifetimes.in_use_end, lifetimes.start
    old = np.flatnonzero(communication & (start <= loop.first) & (end > loop.last) & (end <= last))
    new = np.flatnonzero(communication & (start > loop.last) & (start <= last) & (end > last))
    if not len(old) or not len(new):
        return None
    return FirstStepEffect(
        slug="buckets-rebuilt",
        title="Communication buckets of step 1 are replaced in step 2, in the order in which gradients became ready",
        num_bytes=_bytes(history, old),
        stays=False,
        evidence=_evidence(history, old, new_bytes=_bytes(history, new), num_new=len(new)),
    )


def _foreach_temporaries(history: DeviceHistory, loop: FirstLoop) -> FirstStepEffect | None:
    """Return what the optimizer's step makes of all parameters at a time."""
    lifetimes, phases = history.lifetimes, history.rank.table("phases")
    named = phases["phase"] == history.rank.string_id(Phase.OPTIMIZER.value)
    parameters = np.flatnonzero(_is(loop, Category.PARAMETER) & (lifetimes.start <= loop.last))
    largest, its_rows = 0, np.zeros(0, np.int64)
    for row in np.flatnonzero(named & (phases["step"] == 1) & (phases["end_ns"] != NULL)).tolist():
        first, last = (history.moments.at_time(int(phases[name][row])) for name in ("start_ns", "end_ns"))
        rows = np.flatnonzero((lifetimes.start > first) & (lifetimes.in_use_end <= last))
        sizes = lifetimes.size_bytes[rows]
        level = running_level(
            lifetimes.start[rows] - first, lifetimes.in_use_end[rows] - first, sizes, last - first + 1
        )
        if int(level.max()) > largest:
            largest, at = int(level.max()), first + int(level.argmax())
            its_rows = rows[(lifetimes.start[rows] <= at) & (lifetimes.in_use_end[rows] > at)]
    groups = parameter_groups(history)
    loops_only = bool(groups) and all(one.implementation(is_cpu=history.is_cpu) != "foreach" for one in groups)
    parameter_bytes = _bytes(history, parameters)
    if loops_only or not parameter_bytes or largest < _FOREACH_SHARE * parameter_bytes:
        return None
    return FirstStepEffect(
        slug="foreach-temporaries",
        title="The optimizer's step works on all parameters at a time (foreach) and holds temporaries as large as they",
        num_bytes=largest,
        stays=True,
        evidence=_evidence(history, its_rows, parameter_bytes=parameter_bytes, reference="pytorch#97712"),
    )
