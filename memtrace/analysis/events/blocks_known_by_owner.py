"""Blocks that were live all through a stretch of recording, and that only their owners tell of.

In: the allocations of a device. Out: the same and more. On the CPU, what was live when a stretch began is known from
what was freed in it. A parameter that nobody frees, as in a run that is killed, would be missing after a gap. But an
owner names its address, and the stretch before saw it allocated: so it was live from the start of this one. States and
gradients that were made in the gap are told by their owner alone: torch allocated them, as it need not have parameters,
which may be a mapped file.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from memtrace.analysis.events.lifetimes import Lifetimes
from memtrace.analysis.events.moments import Moments
from memtrace.schema.names import Category
from memtrace.store.columns import NULL, IntArray
from memtrace.store.trace import RankTrace


def with_owned_blocks(rank: RankTrace, device: str, moments: Moments, lifetimes: Lifetimes) -> Lifetimes:
    """Return the allocations, and a block that begins and ends with its stretch for each storage found by its owner."""
    owners = rank.table("owners")
    rows = np.flatnonzero((owners["device"] == rank.string_id(device)) & (owners["address"] != NULL))
    if len(moments.epochs) == 1 or not moments.has_times or not len(rows):
        return lifetimes
    stops = np.array([epoch.stop for epoch in moments.epochs], np.int64)
    epoch_of_row = np.searchsorted(stops, lifetimes.start, side="right")
    is_open = lifetimes.in_use_end == stops[epoch_of_row]
    epoch_of_owner = np.searchsorted(stops, moments.at_times(owners["time_ns"][rows]), side="right")
    made = [rank.string_id(one.value) for one in (Category.OPTIMIZER_STATE, Category.GRADIENT)]
    found = []
    for number in np.unique(epoch_of_owner[epoch_of_owner > 0]).tolist():
        address, first = np.unique(owners["address"][rows[epoch_of_owner == number]], return_index=True)
        size = owners["size_bytes"][rows[epoch_of_owner == number]][first]
        before = np.flatnonzero(is_open & (epoch_of_row < number))
        is_same = _last_sizes(lifetimes.address[before], lifetimes.size_bytes[before], address) == size
        is_made = np.isin(owners["category"][rows[epoch_of_owner == number]][first], made)
        # What has events in the stretch is known from them.
        is_new = (is_same | is_made) & ~np.isin(address, lifetimes.address[epoch_of_row == number])
        epoch = moments.epochs[number]
        found.append(_whole_stretch(address[is_new], size[is_new], epoch.start, epoch.stop))
    return _joined(lifetimes, np.concatenate(found, axis=1)) if found else lifetimes


def _last_sizes(known: IntArray, size_bytes: IntArray, address: IntArray) -> IntArray:
    """Return the last size that each address is known with; null for those that are not."""
    if not len(known):
        return np.full(len(address), NULL, np.int64)
    # The rows of an address follow one another in time, and reversed the first is the last.
    distinct, first = np.unique(known[::-1], return_index=True)
    at = np.minimum(np.searchsorted(distinct, address), len(distinct) - 1)
    return np.where(distinct[at] == address, size_bytes[::-1][first[at]], NULL)


def _whole_stretch(address: IntArray, size_bytes: IntArray, start: int, stop: int) -> IntArray:
    """Return rows of address, size, start and stop, one column a block."""
    return np.stack([address, size_bytes, np.full(len(address), start), np.full(len(address), stop)])


def _joined(lifetimes: Lifetimes, blocks: IntArray) -> Lifetimes:
    """Return allocations and blocks, by address and time."""
    address, size_bytes, start, stop = blocks
    all_addresses, all_starts = np.append(lifetimes.address, address), np.append(lifetimes.start, start)
    order = np.lexsort((all_starts, all_addresses))
    return dataclasses.replace(
        lifetimes,
        address=all_addresses[order],
        size_bytes=np.append(lifetimes.size_bytes, size_bytes)[order],
        stack=np.append(lifetimes.stack, np.full(len(address), NULL, np.int64))[order],
        start=all_starts[order],
        in_use_end=np.append(lifetimes.in_use_end, stop)[order],
        end=np.append(lifetimes.end, stop)[order],
        is_initial=np.append(lifetimes.is_initial, np.ones(len(address), np.bool_))[order],
    )
