"""What owners hold at the end of each step: whole storages, and the tensors in them.

In: `DeviceHistory`. Out: `OwnedBytes` by step and category. A storage may be larger than its tensors: an unevenly
sharded parameter owns padding. Views and tied parameters share a storage, which counts once.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from memtrace.analysis.attribution.attribute import CATEGORIES
from memtrace.analysis.device.device_history import DeviceHistory
from memtrace.analysis.results.report import OwnedBytes
from memtrace.schema.names import Category
from memtrace.store.columns import NULL, IntArray

_LASTING = (Category.PARAMETER, Category.BUFFER, Category.GRADIENT, Category.OPTIMIZER_STATE)


def owned_at_step_ends(history: DeviceHistory) -> Mapping[int, tuple[OwnedBytes, ...]]:
    """Return by number of step what parameters, buffers, gradients and optimizer states hold at its end.

    Steps whose owners were not looked through are absent. Only storages in allocations that were recorded count, each
    in the category that its allocation has.
    """
    owners, allocation = history.rank.table("owners"), history.attribution.allocation_of_owner
    of_category = np.array([history.rank.string_id(one.value) for one in CATEGORIES], np.int64)
    end_ns = end_of_step(history, owners["step"])
    rows = np.flatnonzero((allocation >= 0) & (end_ns != NULL) & (owners["time_ns"] >= end_ns))
    rows = rows[owners["category"][rows] == of_category[history.attribution.category[allocation[rows]]]]
    steps, of_step = np.unique(owners["step"][rows], return_inverse=True)
    storages, storage = np.unique(of_step * len(history.lifetimes) + allocation[rows], return_inverse=True)
    of_step, held = np.divmod(storages, max(len(history.lifetimes), 1))
    storage_bytes = history.lifetimes.size_bytes[held]
    tensor_bytes = np.zeros(len(held), np.int64)
    np.add.at(tensor_bytes, storage, owners["tensor_bytes"][rows])
    # Tensors that overlap, as tied parts of one storage do, are no more than the storage.
    tensor_bytes = np.minimum(tensor_bytes, storage_bytes)
    totals = np.zeros((2, len(steps), len(CATEGORIES)), np.int64)
    at = of_step, history.attribution.category[held].astype(np.int64)
    np.add.at(totals[0], at, storage_bytes)
    np.add.at(totals[1], at, tensor_bytes)
    return {int(step): _owned(totals[:, row]) for row, step in enumerate(steps)}


def end_of_step(history: DeviceHistory, numbers: IntArray) -> IntArray:
    """Return when the steps of these numbers ended; null for those that did not."""
    steps = history.rank.table("steps")
    order = np.argsort(steps["step"], kind="stable")
    known, ends = steps["step"][order], np.append(steps["end_ns"][order], NULL)
    at = np.searchsorted(known, numbers)
    found: IntArray = np.where(np.append(known, NULL)[at] == numbers, ends[at], NULL)
    return found


def _owned(totals: IntArray) -> tuple[OwnedBytes, ...]:
    """Return what is held of each category, from bytes of storages and tensors by category."""
    return tuple(
        OwnedBytes(category=one.value, storage_bytes=int(storage_bytes), tensor_bytes=int(tensor_bytes))
        for one in _LASTING
        for storage_bytes, tensor_bytes in [totals[:, CATEGORIES.index(one)]]
        if storage_bytes
    )
