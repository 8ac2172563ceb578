"""The peak of what a recording itself allocated, for a test that limits its own memory.

In: `AllocationMap` of one device. Out: `OwnPeak`. Blocks that were there before the recording do not count, so that a
test answers for what it allocates and not for what other tests left.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import takewhile

import numpy as np

from memtrace.analysis.results.check import OwnPeak, OwnStack
from memtrace.analysis.results.report import AllocationMap, IntArray
from memtrace.schema.frames import own_frames
from memtrace.schema.names import Decision

_EXACT = (Decision.OWNER.value, Decision.HOOK.value)


def own_peak(found: AllocationMap, *, is_outside: Callable[[str], bool] = lambda _frame: False) -> OwnPeak:
    """Return the moment at which most bytes of the recording's own allocations are in use, and what they are for.

    Stacks end before the innermost frame that `is_outside`: it and those around it are of what started the recording.
    """
    size = found.size_bytes if found.block_bytes is None else found.block_bytes
    rows = np.flatnonzero(~found.is_initial)
    # One more than there are moments: what stays until the end is freed there.
    change = np.zeros(found.num_moments + 1, np.int64)
    np.add.at(change, found.start[rows], size[rows])
    np.subtract.at(change, found.in_use_end[rows], size[rows])
    level = np.cumsum(change[:-1])
    moment = int(level.argmax()) if len(level) else 0
    live = rows[(found.start[rows] <= moment) & (found.in_use_end[rows] > moment)]
    total, exact = (_by_category(found, size, chosen) for chosen in (live, live[_is_exact(found, live)]))
    return OwnPeak(
        num_bytes=int(size[live].sum()),
        measures="requested" if found.block_bytes is None else "allocated",
        by_category=dict(sorted(total.items(), key=lambda item: (-item[1], item[0]))),
        exact_by_category=exact,
        stacks=_stacks(found, size, live, is_outside),
    )


def _is_exact(found: AllocationMap, rows: IntArray) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    exact = np.array([name in _EXACT for name in found.decisions], np.bool_)
    return exact[found.decision[rows]]


def _by_category(found: AllocationMap, size: IntArray, rows: IntArray) -> dict[str, int]:
    total = np.zeros(len(found.categories), np.int64)
    np.add.at(total, found.category[rows], size[rows])
    return {found.categories[at]: int(total[at]) for at in np.flatnonzero(total)}


def _stacks(
    found: AllocationMap, size: IntArray, rows: IntArray, is_outside: Callable[[str], bool]
) -> tuple[OwnStack, ...]:
    """Return bytes by the program's own frames, the largest first."""
    stacks, inverse = np.unique(found.stack[rows], return_inverse=True)
    num_bytes = np.zeros(len(stacks), np.int64)
    np.add.at(num_bytes, inverse, size[rows])
    counts = np.bincount(inverse, minlength=len(stacks))
    total: dict[tuple[str, ...], tuple[int, int]] = {}
    for stack, held, count in zip(stacks.tolist(), num_bytes.tolist(), counts.tolist(), strict=True):
        inside = tuple(takewhile(lambda frame: not is_outside(frame), _frames(found, stack)))
        own = tuple(own_frames(inside))
        before = total.get(own, (0, 0))
        total[own] = (before[0] + held, before[1] + count)
    made = [OwnStack(frames=own, num_bytes=held, num_allocations=count) for own, (held, count) in total.items()]
    return tuple(sorted(made, key=lambda one: (-one.num_bytes, one.frames)))


def _frames(found: AllocationMap, stack: int) -> Iterator[str]:
    """Yield the frames of a stack, innermost first; none where it was not recorded."""
    while stack >= 0:
        yield found.frames[int(found.stack_frame[stack])]
        stack = int(found.stack_parent[stack])
