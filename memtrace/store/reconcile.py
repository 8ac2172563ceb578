"""Events of a recorder that does not see everything, made consistent: torch's profiler misses other threads and gaps.

At one address allocs and frees must alternate. Where they do not, something was not seen, and is put in:

    free first                  the block was live when the events began        → an initial block
    alloc · alloc               the free between them was not seen               → a free just before the second
    free · free                 the alloc between them was not seen              → an alloc just before the second
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from memtrace.store.columns import NULL, BoolArray, IntArray

Columns = Mapping[str, IntArray]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Reconciled:
    """Consistent events, and what had to be assumed."""

    columns: dict[str, IntArray]
    """The columns of the events, with what was not seen put in."""
    initial_address: IntArray
    """Blocks that were live when the events began: those whose first event is a free."""
    initial_size_bytes: IntArray
    initial_device: IntArray
    num_frees_not_seen: int
    num_allocs_not_seen: int


def reconcile(columns: Columns, *, alloc: int, free: int) -> Reconciled:
    """Return the events (in order) made consistent; `alloc` and `free` are the string ids of the two actions."""
    action, address, device = columns["action"], columns["address"], columns["device"]
    rows = np.flatnonzero(((action == alloc) | (action == free)) & (address != NULL))
    order = rows[np.lexsort((rows, address[rows], device[rows]))]
    is_first = _group_starts(address[order], device[order])
    is_alloc = action[order] == alloc
    repeats = ~is_first
    repeats[1:] &= is_alloc[1:] == is_alloc[:-1]
    previous = np.roll(order, 1)

    twice_allocated, twice_freed = repeats & is_alloc, repeats & ~is_alloc
    freed_first = order[is_first & ~is_alloc]
    filled = dict(columns)
    if twice_allocated.any() or twice_freed.any():
        filled = _with_unseen(columns, order, previous, twice_allocated, twice_freed, alloc=alloc, free=free)
    return Reconciled(
        columns=filled,
        initial_address=address[freed_first],
        initial_size_bytes=columns["size_bytes"][freed_first],
        initial_device=device[freed_first],
        num_frees_not_seen=int(np.count_nonzero(twice_allocated)),
        num_allocs_not_seen=int(np.count_nonzero(twice_freed)),
    )


def _group_starts(address: IntArray, device: IntArray) -> BoolArray:
    starts = np.ones(len(address), np.bool_)
    starts[1:] = (address[1:] != address[:-1]) | (device[1:] != device[:-1])
    return starts


def _with_unseen(
    columns: Columns,
    order: IntArray,
    previous: IntArray,
    twice_allocated: BoolArray,
    twice_freed: BoolArray,
    *,
    alloc: int,
    free: int,
) -> dict[str, IntArray]:
    """Return the columns with an event put in before each event whose counterpart was not seen."""
    before = np.concatenate([order[twice_allocated], order[twice_freed]])
    # What was not seen is the end of the block before, or the beginning of this one: its size is that block's.
    sized_by = np.concatenate([previous[twice_allocated], order[twice_freed]])
    num_frees = int(np.count_nonzero(twice_allocated))
    added = {name: values[before] for name, values in columns.items()}
    added["action"] = np.where(np.arange(len(before)) < num_frees, free, alloc)
    added["size_bytes"] = columns["size_bytes"][sized_by]
    for name in ("stack", "total_bytes", "device_free_bytes"):
        added[name] = np.full(len(before), NULL, np.int64)
    place = np.argsort(before, kind="stable")
    return {name: np.insert(values, before[place], added[name][place]) for name, values in columns.items()}
