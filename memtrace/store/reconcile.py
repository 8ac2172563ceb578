"""Events of a recorder that does not see everything, made consistent: torch's profiler misses other threads and gaps.

At one address allocs and frees must alternate. Where they do not, something was not seen, and is put in:

    free first                  the block was live when the events began        → an initial block
    alloc · alloc               the free between them was not seen               → a free just before the second
    free · free                 the alloc between them was not seen              → an alloc just before the second

Where the allocator's own total tells that a block was freed sooner (or at all), the free stands there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from memtrace.store.columns import NULL, BoolArray, IntArray
from memtrace.store.unseen import unseen_frees

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

    twice_freed = repeats & ~is_alloc
    freed_first = order[is_first & ~is_alloc]
    ended, free_before = _ends_not_seen(columns, order, is_alloc, is_first)
    # What was not seen is the end of the block before, or the beginning of this one: its size is that block's.
    before = np.concatenate([free_before, order[twice_freed]])
    filled = dict(columns)
    if len(before):
        sized_by = np.concatenate([ended, order[twice_freed]])
        actions = np.where(np.arange(len(before)) < len(ended), free, alloc)
        filled = _with_unseen(columns, before, sized_by, actions)
    return Reconciled(
        columns=filled,
        initial_address=address[freed_first],
        initial_size_bytes=columns["size_bytes"][freed_first],
        initial_device=device[freed_first],
        num_frees_not_seen=len(ended),
        num_allocs_not_seen=int(np.count_nonzero(twice_freed)),
    )


def _ends_not_seen(
    columns: Columns, order: IntArray, is_alloc: BoolArray, is_first: BoolArray
) -> tuple[IntArray, IntArray]:
    """Return the allocs whose block was freed unseen, and for each the row before which it was.

    `order` are the rows of allocs and frees by address and then by number.
    """
    num_rows = len(columns["action"])
    is_last = np.append(is_first[1:], True)[: len(order)]
    following = np.where(is_last, num_rows, np.roll(order, -1))
    has_no_free = is_alloc & (is_last | np.roll(is_alloc, -1))
    by_row = np.argsort(order[has_no_free])
    begun, until = order[has_no_free][by_row], following[has_no_free][by_row]
    sign = np.zeros(num_rows, np.int64)
    sign[order] = np.where(is_alloc, 1, -1)
    told = unseen_frees(columns, sign, begun, until)
    freed_before = np.where(told == NULL, until, told)
    is_freed = freed_before < num_rows
    return begun[is_freed], freed_before[is_freed]


def _group_starts(address: IntArray, device: IntArray) -> BoolArray:
    starts = np.ones(len(address), np.bool_)
    starts[1:] = (address[1:] != address[:-1]) | (device[1:] != device[:-1])
    return starts


def _with_unseen(columns: Columns, before: IntArray, sized_by: IntArray, actions: IntArray) -> dict[str, IntArray]:
    """Return the columns with an event put in before each of some rows, of the block that another row is about."""
    added = {name: values[before] for name, values in columns.items()}
    added["action"] = actions
    for name in ("address", "device", "size_bytes"):
        added[name] = columns[name][sized_by]
    for name in ("stack", "total_bytes", "device_free_bytes"):
        added[name] = np.full(len(before), NULL, np.int64)
    place = np.argsort(before, kind="stable")
    return {name: np.insert(values, before[place], added[name][place]) for name, values in columns.items()}
