"""Steps repeat the same sequence of sizes: what is known of one repetition holds for the others.

In: sizes in the order of their allocs, and a kind for each, 0 where it is not known. Out: more kinds. Sorting and
comparing of arrays, no loop over allocs.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from memtrace.store.columns import IntArray

_GRAM = 8
"""So many sizes in a row are compared; fewer recur within a step, in every layer."""
_WINDOW = 32
_NEEDED_SHARE = 0.9
"""Of the sizes in a window around an alloc, this share must be those of the repetition."""
_MAX_SHIFTS = 16
"""Distances tried in a round: each microbatch of a step has one of its own."""
_MAX_ROUNDS = 4
_MULTIPLIER = np.int64(6364136223846793005)


def copied_from_repeats(size_bytes: IntArray, kinds: IntArray, *, can_change: npt.NDArray[np.bool_]) -> IntArray:
    """Return the kinds, those that are not known and may change taken from a repetition where they are known.

    What comes before all that is known is no repetition: a model is built with the sizes that its optimizer copies.
    """
    found: IntArray = kinds.copy()
    if kinds.any():
        can_change = can_change & (np.arange(len(kinds)) > int(np.flatnonzero(kinds)[0]))
    wanted = (kinds == 0) & can_change
    if len(kinds) <= _GRAM or not wanted.any() or not kinds.any():
        return found
    codes = gram_codes(size_bytes)
    for _ in range(_MAX_ROUNDS):
        num_wanted = np.count_nonzero(wanted)
        for shift in _shifts(codes, known=found != 0, wanted=wanted):
            distance = shift
            # Each pass doubles how many repetitions are known, so that few passes reach the last.
            while abs(distance) < len(kinds) and _copy(size_bytes, found, wanted, distance):
                distance *= 2
        if np.count_nonzero(wanted) in (0, num_wanted):
            break
    return found


def gram_codes(size_bytes: IntArray) -> IntArray:
    """Return a code for the sizes that end at each alloc, the same for the same sizes; `-1` for the first ones."""
    codes: IntArray = np.zeros(len(size_bytes), np.int64)
    with np.errstate(over="ignore"):
        for back in range(_GRAM):
            codes[_GRAM - 1 :] = (
                codes[_GRAM - 1 :] * _MULTIPLIER + size_bytes[_GRAM - 1 - back : len(size_bytes) - back]
            )
    codes[: _GRAM - 1] = -1
    return codes


def _shifts(codes: IntArray, *, known: npt.NDArray[np.bool_], wanted: npt.NDArray[np.bool_]) -> list[int]:
    """Return the commonest distances from what is wanted to the nearest known alloc with the same sizes before it."""
    order = np.argsort(codes, kind="stable")
    begins = np.concatenate([[True], codes[order][1:] != codes[order][:-1]])
    position = np.arange(len(order))
    group = np.maximum.accumulate(np.where(begins, position, 0))
    # In each group of equal sizes, the last known one so far; read backwards, the next.
    before = np.maximum.accumulate(np.where(known[order], position, -1))
    ends = np.append(begins[1:], True)
    last = np.minimum.accumulate(np.where(ends, position, len(order))[::-1])[::-1]
    after = np.minimum.accumulate(np.where(known[order], position, len(order))[::-1])[::-1]
    asked = wanted[order] & (codes[order] != -1)
    earlier, later = asked & (before >= group), asked & (after <= last)
    shifts: list[int] = []
    for distances in (
        order[earlier] - order[before[earlier]],
        order[later] - order[after[later]],
    ):
        values, counts = np.unique(distances, return_counts=True)
        common = np.flatnonzero((counts >= _GRAM) & (np.abs(values) >= _WINDOW))
        shifts += values[common[np.argsort(-counts[common], kind="stable")][:_MAX_SHIFTS]].tolist()
    return shifts


def _copy(size_bytes: IntArray, found: IntArray, wanted: npt.NDArray[np.bool_], distance: int) -> bool:
    """Take over kinds from `distance` allocs before (after, if negative); return whether there were any.

    Affects: `found`, `wanted`.
    """
    rows = np.flatnonzero(wanted)
    rows = rows[(rows - distance >= 0) & (rows - distance < len(found))]
    rows = rows[(found[rows - distance] != 0) & (size_bytes[rows] == size_bytes[rows - distance])]
    if not len(rows):
        return False
    own = slice(distance, None) if distance > 0 else slice(None, distance)
    other = slice(None, -distance) if distance > 0 else slice(-distance, None)
    sums = np.concatenate([[0], np.cumsum(size_bytes[own] == size_bytes[other])])
    at = rows - max(distance, 0)
    low, high = np.maximum(at - _WINDOW // 2, 0), np.minimum(at + _WINDOW // 2, len(sums) - 1)
    rows = rows[(sums[high] - sums[low]) >= _NEEDED_SHARE * (high - low)]
    found[rows] = found[rows - distance]
    wanted[rows] = False
    return len(rows) > 0
