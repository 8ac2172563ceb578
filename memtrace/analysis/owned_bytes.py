"""What owners hold at the end of each step: whole storages, and the tensors in them.

In: `DeviceHistory`. Out: `OwnedBytes` by step and category. A storage may be larger than its tensors: an unevenly
sharded parameter owns padding. Views and tied parameters share a storage, which counts once.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from memtrace.analysis.attribution import CATEGORIES
from memtrace.analysis.history import DeviceHistory
from memtrace.analysis.results import OwnedBytes
from memtrace.schema.names import Category
from memtrace.store.columns import NULL, IntArray

_LASTING = (Category.PARAMETER, Category.BUFFER, Category.GRADIENT, Category.OPTIMIZER_STATE)


def owned_at_step_ends(history: DeviceHistory) -> Mapping[int, tuple[OwnedBytes, ...]]:
    """Return by number of step what parameters, buffers, gradients and optimizer states hold at its end.

    Steps whose owners were not looked through are absent. Only storages in allocations that were recorded count, each
    in the category that its allocation has.
    """
    owners, steps = history.rank.table("owners"), history.rank.table("steps")
    ends = dict(zip(steps["step"].tolist(), steps["end_ns"].tolist(), strict=True))
    end_ns = np.array([ends.get(step, NULL) for step in owners["step"].tolist()], np.int64)
    allocation = history.attribution.allocation_of_owner
    of_category = np.array([history.rank.string_id(one.value) for one in CATEGORIES], np.int64)
    rows = np.flatnonzero((allocation >= 0) & (end_ns != NULL) & (owners["time_ns"] >= end_ns))
    own = of_category[history.attribution.category[allocation[rows]]]
    rows = rows[owners["category"][rows] == own]
    return {int(step): _owned(history, rows[owners["step"][rows] == step]) for step in np.unique(owners["step"][rows])}


def _owned(history: DeviceHistory, rows: IntArray) -> tuple[OwnedBytes, ...]:
    """Return what these rows of one sweep hold, by category."""
    allocations, at = np.unique(history.attribution.allocation_of_owner[rows], return_inverse=True)
    storage_bytes = history.lifetimes.size_bytes[allocations]
    tensor_bytes = np.zeros(len(allocations), np.int64)
    np.add.at(tensor_bytes, at.reshape(-1), history.rank.table("owners")["tensor_bytes"][rows])
    # Tensors that overlap, as tied parts of one storage do, are no more than the storage.
    tensor_bytes = np.minimum(tensor_bytes, storage_bytes)
    category = history.attribution.category[allocations]
    found = ((one, category == CATEGORIES.index(one)) for one in _LASTING)
    return tuple(
        OwnedBytes(
            category=one.value,
            storage_bytes=int(storage_bytes[chosen].sum()),
            tensor_bytes=int(tensor_bytes[chosen].sum()),
        )
        for one, chosen in found
        if chosen.any()
    )
