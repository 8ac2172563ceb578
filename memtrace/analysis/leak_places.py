"""The places of a program that ask for memory, for telling which of them keeps more and more of it.

In: allocations of a device. Out: `LeakPlaces`, and the line of the program under which some of them were made.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from memtrace.analysis.history import DeviceHistory
from memtrace.analysis.marks import modules_of
from memtrace.analysis.stacks import frames_of
from memtrace.schema.frames import own_frames
from memtrace.store.columns import NULL, IntArray

_FRAME = re.compile(r"(?P<file>.*):(?P<line>\d+) (?P<function>.*)")
_NEARLY_ALL = 0.9


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
    stack, phase = history.lifetimes.stack[rows], _phases_of(history, rows)
    module = np.where(stack == NULL, modules_of(history, rows), NULL)
    keys, of_row = np.unique(np.stack([stack, phase, module], axis=1), axis=0, return_inverse=True)
    return LeakPlaces(
        rows=rows,
        of_row=of_row.reshape(-1),
        stack=keys[:, 0],
        phase=tuple(history.rank.text(one) for one in keys[:, 1].tolist()),
    )


def _phases_of(history: DeviceHistory, rows: IntArray) -> IntArray:
    """Return the string id of the phase in which each was allocated; null outside any, and where it was live before."""
    found = np.full(len(rows), NULL, np.int64)
    known = np.flatnonzero(~history.lifetimes.is_initial[rows])
    phases = history.rank.table("phases")
    if len(phases) and len(known) and history.moments.has_times:
        at = history.phases.innermost(history.moments.time_ns[history.lifetimes.start[rows[known]]])
        found[known] = np.where(at >= 0, phases["phase"][at], NULL)
    return found


def shared_place(history: DeviceHistory, rows: IntArray) -> dict[str, Any] | None:
    """Return the innermost line of the program's own code under which nearly all bytes of some allocations were made.

    What a loss keeps alive was made all over the model; it shares the line that called the model. `None` without
    stacks.
    """
    by_stack: Counter[int] = Counter()
    for stack, size in zip(
        history.lifetimes.stack[rows].tolist(), history.lifetimes.size_bytes[rows].tolist(), strict=True
    ):
        if stack != NULL:
            by_stack[stack] += size
    paths = {stack: own_frames(frames_of(history.rank, stack))[::-1] for stack in by_stack}
    shared: str | None = None
    depth, inside = 0, dict(by_stack)
    while inside:
        frames: Counter[str] = Counter()
        for stack, size in inside.items():
            if depth < len(paths[stack]):
                frames[paths[stack][depth]] += size
        frame, size = max(frames.items(), key=lambda item: (item[1], item[0]), default=("", 0))
        if size < _NEARLY_ALL * sum(inside.values()):
            # Lines of one function that share the work: the one with the most bytes, if nothing better is known.
            shared = shared or frame or None
            break
        shared, depth = frame, depth + 1
        inside = {
            stack: one
            for stack, one in inside.items()
            if len(paths[stack]) >= depth and paths[stack][depth - 1] == frame
        }
    match = None if shared is None else _FRAME.fullmatch(shared)
    if match is None:
        return None
    return {"file": match["file"], "line": int(match["line"]), "function": match["function"], "module": None}
