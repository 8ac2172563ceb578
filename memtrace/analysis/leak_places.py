"""The places of a program that ask for memory, for telling which of them keeps more and more of it.

In: allocations of a device. Out: `LeakPlaces`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from memtrace.analysis.history import DeviceHistory
from memtrace.analysis.marks import modules_of
from memtrace.store.columns import NULL, IntArray


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LeakPlaces:
    """Which place asked for each of some allocations."""

    rows: IntArray
    """Rows of lifetimes."""
    of_row: npt.NDArray[np.intp]
    """The number of the place of each."""
    stack: IntArray
    """For each place its row of stacks; null where none was recorded, and phase and module alone tell it."""
    phase: tuple[str | None, ...]
    """For each place the phase in which it asked."""


def leak_places(history: DeviceHistory, rows: IntArray) -> LeakPlaces:
    """Return the places of some allocations: phase and stack; without a stack, phase and module."""
    stack, phase = history.lifetimes.stack[rows], phases_of(history, rows)
    module = np.where(stack == NULL, modules_of(history, rows), NULL)
    keys, of_row = np.unique(np.stack([stack, phase, module], axis=1), axis=0, return_inverse=True)
    return LeakPlaces(
        rows=rows,
        of_row=of_row.reshape(-1),
        stack=keys[:, 0],
        phase=tuple(history.rank.text(one) for one in keys[:, 1].tolist()),
    )


def phases_of(history: DeviceHistory, rows: IntArray) -> IntArray:
    """Return the string id of the phase in which each was allocated; null outside any, and where it was live before."""
    found = np.full(len(rows), NULL, np.int64)
    known = np.flatnonzero(~history.lifetimes.is_initial[rows])
    phases = history.rank.table("phases")
    if len(phases) and len(known) and history.moments.has_times:
        at = history.phases.innermost(history.moments.time_ns[history.lifetimes.start[rows[known]]])
        found[known] = np.where(at >= 0, phases["phase"][at], NULL)
    return found
