"""Which blocks were live before a history began, found by undoing the history from the blocks that are live after it.

Backwards, a completed free puts a block back and an alloc takes it away. At one address these alternate, so what was
there before the history is told by the *first* event of the address alone: a free means that a block was live, an alloc
that none was; an address without events held what it holds at the end. One sort instead of a walk.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from memtrace.store.columns import NULL, BoolArray, IntArray


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class InitialState:
    """Blocks live before the history, by address, and how many events contradict each other."""

    address: IntArray
    """Address of each block, ascending."""
    size_bytes: IntArray
    """Requested bytes."""
    stack: IntArray
    """Row of stacks; null where it was freed in the history, which does not say where it came from."""
    num_contradictions: int
    """Allocs of a live block, frees of a free one, and blocks whose last event disagrees with the final state."""


def undo_history(
    *,
    is_alloc: BoolArray,
    address: IntArray,
    size_bytes: IntArray,
    final_address: IntArray,
    final_size_bytes: IntArray,
    final_stack: IntArray,
) -> InitialState:
    """Return the state before a history of allocs and completed frees (in order) that led to the final blocks."""
    order = np.argsort(address, kind="stable")
    sorted_address, sorted_alloc = address[order], is_alloc[order]
    starts = np.ones(len(order), np.bool_)
    starts[1:] = sorted_address[1:] != sorted_address[:-1]
    repeats = ~starts
    repeats[1:] &= sorted_alloc[1:] == sorted_alloc[:-1]
    freed_first = order[starts & ~sorted_alloc]

    ends = np.ones(len(order), np.bool_)
    ends[:-1] = starts[1:]
    live_after = sorted_address[ends & sorted_alloc]
    untouched = ~np.isin(final_address, sorted_address[starts])
    wrong_ends = np.setxor1d(live_after, final_address[~untouched])

    initial_address = np.concatenate([address[freed_first], final_address[untouched]])
    initial_size = np.concatenate([size_bytes[freed_first], final_size_bytes[untouched]])
    initial_stack = np.concatenate([np.full(len(freed_first), NULL, np.int64), final_stack[untouched]])
    by_address = np.argsort(initial_address, kind="stable")
    return InitialState(
        address=initial_address[by_address],
        size_bytes=initial_size[by_address],
        stack=initial_stack[by_address],
        num_contradictions=int(np.count_nonzero(repeats)) + len(wrong_ends),
    )
