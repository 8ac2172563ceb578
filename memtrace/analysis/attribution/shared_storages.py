"""Allocations that hold more than one thing: gradients that are views of a communication bucket.

In: allocations and their attribution. Out: the same, with each such allocation as two rows: the bytes of its gradients,
and the rest of the bucket. So sums by category are right wherever they are made.

    bucket of 100 bytes, gradients of 30 and 50    →    80 bytes gradient, 20 bytes communication

Both rows live as long as the allocation does; the second one begins where the first one's bytes end.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from memtrace.analysis.attribution.attribute import CATEGORIES, DECISIONS, ROLES, Attribution
from memtrace.analysis.events.lifetimes import Lifetimes
from memtrace.schema.names import Category, Decision, Role
from memtrace.store.columns import NULL, IntArray
from memtrace.store.trace import RankTrace

_COMMUNICATION = CATEGORIES.index(Category.COMMUNICATION)


def split_shared(rank: RankTrace, lifetimes: Lifetimes, attribution: Attribution) -> tuple[Lifetimes, Attribution]:
    """Return allocations and attribution with the communication part of shared allocations as rows of their own."""
    owners, of_owner = rank.table("owners"), attribution.allocation_of_owner
    is_bucket = (owners["category"] == rank.string_id(Category.COMMUNICATION.value)) & (of_owner >= 0)
    bucket_rows = np.flatnonzero(is_bucket)
    shared = np.unique(of_owner[bucket_rows])
    shared = shared[attribution.category[shared] != _COMMUNICATION]
    own_bytes = _largest_tensor_bytes(rank, attribution, shared)
    is_partial = (own_bytes > 0) & (own_bytes < lifetimes.size_bytes[shared])
    shared, own_bytes = shared[is_partial], own_bytes[is_partial]
    if not len(shared):
        return lifetimes, attribution
    copies = np.ones(len(lifetimes), np.int64)
    copies[shared] = 2
    of = np.repeat(np.arange(len(lifetimes)), copies)
    first = np.cumsum(copies)[shared] - 2
    rest = first + 1
    owner_row = np.full(len(lifetimes), NULL, np.int64)
    owner_row[of_owner[bucket_rows[::-1]]] = bucket_rows[::-1]
    return _split_lifetimes(lifetimes, of, first, own_bytes), _split_attribution(
        attribution, of, rest, owner_row[shared], np.cumsum(copies) - copies
    )


def _largest_tensor_bytes(rank: RankTrace, attribution: Attribution, shared: IntArray) -> IntArray:
    """Return for each shared allocation the most bytes that tensors of its category had at one time."""
    owners, of_owner = rank.table("owners"), attribution.allocation_of_owner
    rows = np.flatnonzero(np.isin(of_owner, shared)) if len(shared) else np.zeros(0, np.int64)
    names = np.array([rank.string_id(one.value) for one in CATEGORIES], np.int64)
    rows = rows[owners["category"][rows] == names[attribution.category[of_owner[rows]]]]
    sweeps, sweep = np.unique(np.stack([of_owner[rows], owners["time_ns"][rows]]), axis=1, return_inverse=True)
    sums = np.zeros(sweeps.shape[1], np.int64)
    np.add.at(sums, sweep.reshape(-1), owners["tensor_bytes"][rows])
    largest = np.zeros(len(shared), np.int64)
    np.maximum.at(largest, np.searchsorted(shared, sweeps[0]), sums)
    return largest


def _split_lifetimes(lifetimes: Lifetimes, of: IntArray, first: IntArray, own_bytes: IntArray) -> Lifetimes:
    address, size_bytes = lifetimes.address[of], lifetimes.size_bytes[of]
    address[first + 1] += own_bytes
    size_bytes[first + 1] -= own_bytes
    size_bytes[first] = own_bytes
    return dataclasses.replace(
        lifetimes,
        address=address,
        size_bytes=size_bytes,
        stack=lifetimes.stack[of],
        start=lifetimes.start[of],
        in_use_end=lifetimes.in_use_end[of],
        end=lifetimes.end[of],
        is_initial=lifetimes.is_initial[of],
    )


def _split_attribution(
    attribution: Attribution, of: IntArray, rest: IntArray, bucket_rows: IntArray, new_row: IntArray
) -> Attribution:
    category, decision, role = attribution.category[of], attribution.decision[of], attribution.role[of]
    owner_row, saved_row = attribution.owner_row[of], attribution.saved_row[of]
    category[rest], decision[rest] = _COMMUNICATION, DECISIONS.index(Decision.OWNER)
    role[rest] = ROLES.index(Role.NONE)
    owner_row[rest], saved_row[rest] = bucket_rows, NULL
    known = attribution.allocation_of_owner
    return dataclasses.replace(
        attribution,
        category=category,
        decision=decision,
        role=role,
        owner_row=owner_row,
        saved_row=saved_row,
        allocation_of_owner=np.where(known >= 0, new_row[known], known),
    )
