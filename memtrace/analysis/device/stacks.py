"""Which stacks allocated the bytes that are live at a moment.

In: `DeviceHistory`, a moment. Out: `StackRow`s, largest first. Bytes without a stack are one row without frames.
"""

from __future__ import annotations

import numpy as np

from memtrace.analysis.attribution.attribute import CATEGORIES
from memtrace.analysis.device.device_history import DeviceHistory
from memtrace.analysis.device.modules import sum_by_group
from memtrace.analysis.results.report import StackRow
from memtrace.schema.frames import OF_PROGRAM, frame_class
from memtrace.schema.names import Category
from memtrace.store.columns import NULL
from memtrace.store.trace import RankTrace

MAX_STACKS = 200
"""Most stacks of a report; the rest is small."""


def stacks_at(history: DeviceHistory, moment: int) -> tuple[StackRow, ...]:
    """Return the stacks with the most bytes at a moment."""
    live = history.lifetimes.live_at(moment)
    stacks, code = np.unique(history.lifetimes.stack[live], return_inverse=True)
    table = sum_by_group(code, len(stacks), history.attribution.category[live], history.lifetimes.size_bytes[live])
    counts = np.bincount(code, minlength=len(stacks))
    base = int(history.levels.base[moment])
    if base and (not len(stacks) or stacks[0] != NULL):
        # Null is the smallest integer, so the row without a stack comes first.
        stacks, counts = np.concatenate([[NULL], stacks]), np.concatenate([[0], counts])
        table = np.concatenate([np.zeros((1, len(CATEGORIES)), np.int64), table])
    if base:
        table[0, CATEGORIES.index(Category.UNKNOWN)] += base
    totals = table.sum(axis=1)
    largest = np.lexsort((stacks, -totals))[:MAX_STACKS]
    return tuple(
        StackRow(
            frames=frames_of(history.rank, int(stacks[row])),
            num_bytes=int(totals[row]),
            num_allocations=int(counts[row]),
            category=CATEGORIES[int(table[row].argmax())].value,
            by_category={CATEGORIES[at].value: int(table[row, at]) for at in np.flatnonzero(table[row])},
        )
        for row in largest
        if totals[row] > 0
    )


def _frame(rank: RankTrace, row: int) -> str:
    frames = rank.table("frames")
    file, line = rank.text(int(frames["file"][row])), int(frames["line"][row])
    function = rank.text(int(frames["function"][row])) or ""
    place = f"{file}:{line}" if file and line else file or ""
    return f"{place} {function}".strip()


def program_lines(rank: RankTrace) -> tuple[str, ...]:
    """Return all frames of the program's own that a recording has."""
    texts = (_frame(rank, row) for row in range(len(rank.table("frames"))))
    return tuple(text for text in dict.fromkeys(texts) if frame_class(text) == OF_PROGRAM)


def frames_of(rank: RankTrace, stack: int) -> tuple[str, ...]:
    """Return the frames of one stack as "file:line function", innermost first; none for null."""
    stacks = rank.table("stacks")
    found: list[str] = []
    while stack != NULL and len(found) <= len(stacks):
        frame = int(stacks["frame"][stack])
        found.append(_frame(rank, frame))
        stack = int(stacks["parent"][stack])
    return tuple(found)
