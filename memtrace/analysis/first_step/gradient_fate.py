"""What becomes of a step's gradients in the next step, told from where `zero_grad` runs and what is freed there.

In: `DeviceHistory` and its `FirstLoop`. Out: `Gradients`, several where the recording does not tell.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum

import numpy as np

from memtrace.analysis.attribution.attribute import CATEGORIES
from memtrace.analysis.device.device_history import DeviceHistory
from memtrace.analysis.first_step.first_loop import FirstLoop
from memtrace.schema.names import Category


class Gradients(Enum):
    """What becomes of a step's gradients in the next step."""

    FREED = "freed"
    """Gone before the next forward."""
    UNTIL_BACKWARD = "until_backward"
    """In use through the next forward, freed before the next backward pass."""
    KEPT = "kept"
    """Set to zero and added to: always in use, and each new one is a temporary beside them."""


def gradient_fates(history: DeviceHistory, loop: FirstLoop) -> list[Gradients]:
    """Return what becomes of the gradients, the likeliest first; several where the recording does not tell."""
    if loop.accumulates or history.rank.header.get("keeps_gradients"):
        return [Gradients.KEPT]
    lifetimes = history.lifetimes
    gradients = np.flatnonzero(loop.category == CATEGORIES.index(Category.GRADIENT))
    start, end = lifetimes.start[gradients], lifetimes.in_use_end[gradients]
    size = lifetimes.size_bytes[gradients]
    for before, after in loop.zero_grads:
        there = (start <= before) & (end > before)
        if 2 * int(size[there & (end > after)].sum()) > int(size[there].sum()):
            return [Gradients.KEPT]
    made = int(size[(start <= loop.last) & (end > loop.last)].sum())
    live = int(size[(start <= loop.last) & (end > loop.known_until)].sum())
    if loop.sees_next_forward:
        return [Gradients.UNTIL_BACKWARD if 2 * live > made else Gradients.FREED]
    if any(loop.first < before <= loop.backward for before, _ in loop.zero_grads):
        return [Gradients.UNTIL_BACKWARD, Gradients.KEPT]
    return [Gradients.FREED, Gradients.KEPT] if 2 * live > made else [Gradients.FREED]


def assumed(fates: Sequence[Gradients]) -> tuple[str, ...]:
    """Return what is assumed where the recording does not tell."""
    if len(fates) < 2:
        return ()
    where = "before the next forward"
    if fates[0] is Gradients.UNTIL_BACKWARD:
        where = "between forward and backward, where it ran in step 1"
    return (f"zero_grad frees the gradients {where} (set_to_none, torch's default).",)
