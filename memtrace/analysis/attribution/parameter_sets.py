"""Sets of allocations that repeat the parameters of a model: copies, averages, states of the program's own.

In: sizes, and which were made together. Out: which of them are part of such a set.
"""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import numpy.typing as npt

from memtrace.schema.names import Category
from memtrace.store.columns import IntArray
from memtrace.store.trace import RankTrace

_WHOLE = 0.9
"""The part of the parameters, by number and by bytes, that a set has to repeat."""
_COINCIDENCE = 0.5
"""A smaller part of the parameters, by bytes, may be repeated by chance: buffers have round sizes, too."""
_LEAST_TENSORS = 3
_LEAST_SIZES = 2
"""Fewer tensors, or all of one size, may as well be a batch."""


def last_seen(rank: RankTrace, category: Category) -> IntArray:
    """Return the rows of owners of a category at the last look that found any."""
    owners = rank.table("owners")
    rows = np.flatnonzero(owners["category"] == rank.string_id(category.value))
    times = owners["time_ns"][rows]
    return rows[times == times.max()] if len(rows) else rows


def parameter_sizes(rank: RankTrace) -> Counter[int]:
    """Return how many parameters of each size there are, as those were that were seen last."""
    owners, last = rank.table("owners"), last_seen(rank, Category.PARAMETER)
    _, first = np.unique(owners["address"][last], return_index=True)
    return Counter(owners["size_bytes"][last[first]].tolist())


def repeats_much(sizes: IntArray, wanted: Counter[int]) -> bool:
    """Return whether some sizes are those of most of what is wanted, by bytes, and of several: no coincidence.

    Where models are alike, as a student and its teacher, those of one of them will do.

    >>> repeats_much(np.array([100, 90, 80]), Counter({100: 2, 90: 2, 80: 2}))
    True
    >>> wanted = Counter({100: 2, 90: 3})
    >>> repeats_much(np.array([100, 90, 90]), wanted)
    True
    >>> repeats_much(np.array([100, 100]), wanted), repeats_much(np.array([100, 90]), wanted)
    (False, False)
    """
    if wanted.total() < _LEAST_TENSORS or len(wanted) < _LEAST_SIZES:
        # Of so few, any may be a copy.
        return bool(Counter(sizes.tolist()) & wanted)
    num_alike = math.gcd(*wanted.values())
    wanted = Counter({size: count // num_alike for size, count in wanted.items()})
    there = Counter(sizes.tolist()) & wanted
    there_bytes, total_bytes = (sum(size * count for size, count in one.items()) for one in (there, wanted))
    return len(there) >= _LEAST_SIZES and there_bytes > _COINCIDENCE * total_bytes


def in_sets(sizes: IntArray, made_with: IntArray, wanted: Counter[int]) -> npt.NDArray[np.bool_]:
    """Return which of some sizes are of a group that holds nearly one of each that is wanted.

    >>> wanted = Counter({100: 2, 40: 1})
    >>> in_sets(np.array([100, 100, 40, 7, 100]), np.array([1, 1, 1, 1, 2]), wanted).tolist()
    [True, True, True, False, False]
    """
    found = np.zeros(len(sizes), np.bool_)
    if wanted.total() < _LEAST_TENSORS or len(wanted) < _LEAST_SIZES:
        return found
    total_bytes = sum(size * count for size, count in wanted.items())
    is_wanted = np.isin(sizes, list(wanted))
    for group in np.unique(made_with[is_wanted]).tolist():
        members = np.flatnonzero(is_wanted & (made_with == group))
        there = Counter(sizes[members].tolist()) & wanted
        num_bytes = sum(size * count for size, count in there.items())
        if (
            len(there) >= _LEAST_SIZES
            and there.total() >= _WHOLE * wanted.total()
            and num_bytes >= _WHOLE * total_bytes
        ):
            found[members] = True
    return found
