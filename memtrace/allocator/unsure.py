"""How far the allocated level of a replay may be off: remainders of initial blocks that no event ever showed.

A block of the large pool that was in use before the history may hold a remainder of up to 1 MiB behind which there is
free space (see `initial`). If an alloc starts right behind the block while it is in use, its size is confirmed. If not,
nothing in the recording tells: no address depends on it, but the bytes that the block counts for do.
"""

from __future__ import annotations

import numpy as np

from memtrace.allocator.history import ALLOC, FREE_COMPLETED, FREE_REQUESTED, History
from memtrace.allocator.initial import Initial, InitialBlock
from memtrace.allocator.results import IntArray


def unsure_levels(history: History, initial: Initial) -> tuple[IntArray, int, int]:
    """Return the bytes by which allocated may be larger after each event, the same before the first, and of how many
    blocks."""
    deltas, start, count = np.zeros(len(history.action), np.int64), 0, 0
    open_blocks = [block for used in initial.blocks for block in used if block.slack]
    if not open_blocks:
        return deltas, 0, 0
    is_alloc = history.action == ALLOC
    asks = FREE_REQUESTED if np.any(history.action == FREE_REQUESTED) else FREE_COMPLETED
    for block in open_blocks:
        extra = initial.extra.get(block.address, 0)
        end = block.address + block.size + extra
        freed = _first(history, FREE_COMPLETED, block)
        if np.any(is_alloc[:freed] & (history.address[:freed] == end)):
            continue
        count += 1
        asked = _first(history, asks, block)
        if not block.is_pending:
            start += block.slack - extra
            if asked < len(deltas):
                deltas[asked] -= block.slack - extra
    return start + np.cumsum(deltas), start, count


def _first(history: History, action: int, block: InitialBlock) -> int:
    """Return the first event of a kind at a block's address; the number of events if there is none."""
    found = np.flatnonzero((history.action == action) & (history.address == block.address))
    return int(found[0]) if len(found) else len(history.action)
