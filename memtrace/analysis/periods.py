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
_MAX_SHIFTS = 3
_MULTIPLIER = np.int64(6364136223846793005)


def copied_from_repeats(size_bytes: IntArray, kinds: IntArray, *, can_change: npt.NDArray[np.bool_]) -> IntArray:
    """Return the kinds, those that are not known and may change taken from a repetition where they are known."""
    found: IntArray = kinds.copy()
    wanted = (kinds == 0) & can_change
    if len(kinds) <= _GRAM or not wanted.any() or not kinds.any():
        return found
    for shift in _shifts(gram_codes(size_bytes), known=kinds != 0, wanted=wanted):
        distance = shift
        # Each pass doubles how many repetitions are known, so that few passes reach the last.
        while abs(distance) < len(kinds) and wanted.any():
            _copy(size_bytes, found, wanted, distance)
            wanted = (found == 0) & can_change
            distance *= 2
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
    """Return the commonest distances from what is wanted to a known alloc with the same sizes before it."""
    # The window before a wanted alloc may end in a known one: where sizes recur is what counts.
    order = np.lexsort((np.arange(len(codes)), codes))
    same = codes[order][1:] == codes[order][:-1]
    before, after = order[:-1][same], order[1:][same]
    forward = (after - before)[wanted[after] & (codes[after] != -1)]
    backward = (before - after)[wanted[before] & known[after] & (codes[before] != -1)]
    shifts: list[int] = []
    for distances in (forward, backward):
        values, counts = np.unique(distances, return_counts=True)
        # The shortest that is common is the period; a multiple of it skips repetitions.
        common = values[counts >= max(counts.max(initial=0) // 4, _GRAM)]
        shifts += [int(one) for one in common[np.argsort(np.abs(common))] if abs(one) >= _WINDOW][:_MAX_SHIFTS]
    return shifts


def _copy(size_bytes: IntArray, found: IntArray, wanted: npt.NDArray[np.bool_], distance: int) -> None:
    """Take over kinds from `distance` allocs before (after, if negative). Affects: `found`."""
    own = slice(distance, None) if distance > 0 else slice(None, distance)
    other = slice(None, -distance) if distance > 0 else slice(-distance, None)
    equal = size_bytes[own] == size_bytes[other]
    sums = np.concatenate([[0], np.cumsum(equal)])
    low = np.maximum(np.arange(len(equal)) - _WINDOW // 2, 0)
    high = np.minimum(np.arange(len(equal)) + _WINDOW // 2, len(equal))
    alike = (sums[high] - sums[low]) >= _NEEDED_SHARE * (high - low)
    take = equal & alike & wanted[own] & (found[other] != 0)
    found[own] = np.where(take, found[other], found[own])
