"""The places of a program that ask for memory, for telling which of them keeps more and more of it.

In: allocations of a device. Out: `LeakPlaces`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from memtrace.analysis.device.device_history import DeviceHistory
from memtrace.analysis.device.marks import modules_of
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
    first, of_row = distinct(stack, phase, module)
    return LeakPlaces(
        rows=rows,
        of_row=of_row,
        stack=stack[first],
        phase=tuple(history.rank.text(one) for one in phase[first].tolist()),
    )


def distinct(*columns: IntArray) -> tuple[IntArray, npt.NDArray[np.intp]]:
    """Return where each distinct row of some columns first stands, and for each row which of these it is.

    Quicker than `np.unique` over an axis, which sorts rows as bytes.

    >>> first, of_row = distinct(np.array([5, 5, 7, 5]), np.array([1, 2, 1, 1]))
    >>> first.tolist(), of_row.tolist()
    ([0, 1, 2], [0, 1, 2, 0])
    """
    code = np.zeros(len(columns[0]), np.int64)
    for column in columns:
        values, of_value = np.unique(column, return_inverse=True)
        # Made dense each time, so that the product never overflows.
        code = np.unique(code, return_inverse=True)[1] * len(values) + of_value
    _, first, of_row = np.unique(code, return_index=True, return_inverse=True)
    return first, of_row


def phases_of(history: DeviceHistory, rows: IntArray) -> IntArray:
    """Return the string id of the phase in which each was allocated; null outside any, and where it was live before."""
    found = np.full(len(rows), NULL, np.int64)
    known = np.flatnonzero(~history.lifetimes.is_initial[rows])
    phases = history.rank.table("phases")
    if len(phases) and len(known) and history.moments.has_times:
        at = history.phases.innermost(history.moments.time_ns[history.lifetimes.start[rows[known]]])
        found[known] = np.where(at >= 0, phases["phase"][at], NULL)
    return found
