"""What of the growth from step to step can be a leak, and how much of the peak it has become.

In: `DeviceHistory` with steps. Out: the allocations that no model or optimizer holds by the end of a step, and what has
piled up by a step. A figure is never more than what the level itself grew by.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Sequence

import numpy as np

from memtrace.analysis.attribution.attribute import CATEGORIES, DECISIONS
from memtrace.analysis.device.device_history import DeviceHistory
from memtrace.analysis.device.steps import StepSpan, step_spans
from memtrace.schema.names import Category, Decision
from memtrace.store.columns import IntArray


def not_owned(
    history: DeviceHistory, steps: Sequence[int], born: IntArray, died: IntArray
) -> tuple[IntArray, IntArray]:
    """Return the allocations that may pile up, and for all of them the first step end at which they do.

    Step ends are numbered as `steps` are; `born` is the first at which each is live and `died` the first at which it is
    not. States that an optimizer holds are bounded by its parameters, as gradients are while these have them: a layer
    that starts to learn brings its own.
    """
    owners, rank, attribution = history.rank.table("owners"), history.rank, history.attribution
    is_state = attribution.category == CATEGORIES.index(Category.OPTIMIZER_STATE)
    is_state &= attribution.decision == DECISIONS.index(Decision.OWNER)
    named = owners["category"] == rank.string_id(Category.GRADIENT.value)
    rows = np.flatnonzero(named & (attribution.allocation_of_owner >= 0) & np.isin(owners["step"], steps))
    born = born.copy()
    after = np.searchsorted(np.array(steps, np.int64), owners["step"][rows]) + 1
    np.maximum.at(born, attribution.allocation_of_owner[rows], after)
    return np.flatnonzero((born < died) & ~is_state), born


def inputs_grow(history: DeviceHistory, steps: Collection[int]) -> bool:
    """Return whether the batch of each of these steps was larger than that of the one before."""
    sizes = [num_bytes for step, num_bytes in sorted(input_bytes(history).items()) if step in steps and step >= 1]
    return len(sizes) > 1 and all(later > earlier for earlier, later in itertools.pairwise(sizes))


def input_bytes(history: DeviceHistory) -> dict[int, int]:
    """Return the bytes of what went into the forwards of each step in which that was seen."""
    owners = history.rank.table("owners")
    rows = np.flatnonzero(owners["category"] == history.rank.string_id(Category.INPUT.value))
    found: dict[int, int] = {}
    for step, num_bytes in zip(owners["step"][rows].tolist(), owners["tensor_bytes"][rows].tolist(), strict=True):
        found[step] = found.get(step, 0) + num_bytes
    return found


def piled_up(history: DeviceHistory, first: StepSpan, moment: int, steps: int, rate: int) -> int:
    """Return what has piled up by a moment, so many steps after the end of a first one, at a rate a step.

    That is never more than what all memory grew by since then, by less where things were dropped on the way.
    """
    level = history.levels.requested
    return max(min(rate * steps, int(level[moment] - level[first.last])), 0)


def ended_steps(history: DeviceHistory) -> list[StepSpan]:
    """Return the steps of training that were recorded, in order."""
    spans = sorted((span for span in step_spans(history).values() if span.recorded), key=lambda span: span.step)
    return [span for span in spans if span.step >= 1]
