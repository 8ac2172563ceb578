"""Sizes as evidence: parameters, gradients and optimizer states come in equal sets of sizes.

In: rows of allocations and their sizes. Out: the rows that match. Loops over distinct sizes and long-lived blocks only.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from math import gcd

import numpy as np
import numpy.typing as npt

from memtrace.store.columns import IntArray

NEEDED_SHARE = 0.95
"""Bytes that must fall into equal sets: a few buffers may be left over, no more."""


def count_sizes(size_bytes: IntArray) -> Counter[int]:
    """Return how many blocks there are of each size."""
    return Counter(size_bytes.tolist())


def match_sizes(
    rows: IntArray, size_bytes: IntArray, counts: Counter[int], *, per_phase: npt.NDArray[np.intp]
) -> IntArray:
    """Return the rows that match the counted blocks one to one; those of each phase are matched anew."""
    used: Counter[tuple[int, int]] = Counter()
    matched = []
    for row in rows.tolist():
        key = (int(per_phase[row]), int(size_bytes[row]))
        if used[key] < counts[key[1]]:
            used[key] += 1
            matched.append(row)
    return np.array(matched, np.int64)


def sets_of_sizes(rows: IntArray, size_bytes: IntArray, possible: Sequence[int] = (4, 3, 2)) -> list[IntArray]:
    """Return rows in equal sets of sizes, of the first possible number; empty where they do not fall into any.

    No larger number may divide how often each size comes: twelve blocks of every size may be two sets of six layers as
    well as four of three.

    >>> [one.tolist() for one in sets_of_sizes(np.arange(4), np.array([512, 8, 8, 512]))]
    [[1, 0], [2, 3]]
    """
    counts, total = count_sizes(size_bytes[rows]), int(size_bytes[rows].sum())
    for num_sets in possible:
        fits = {size for size, count in counts.items() if count % num_sets == 0}
        is_whole = gcd(*(counts[size] for size in fits)) == num_sets
        if is_whole and sum(size * counts[size] for size in fits) >= NEEDED_SHARE * total:
            found: list[list[int]] = [[] for _ in range(num_sets)]
            for size in sorted(fits):
                same = rows[size_bytes[rows] == size].tolist()
                for at, row in enumerate(same):
                    found[at * num_sets // len(same)].append(row)
            return [np.array(one, np.int64) for one in found]
    return []
