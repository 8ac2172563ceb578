"""Sizes: how a request is rounded, which pool serves it, how large a segment is made for it. All in bytes.

The constants are those of torch's `c10/core/AllocatorConfig.h` and did not change from torch 2.1 to 2.15.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from memtrace.allocator.settings import MIB, NUM_DIVISIONS, Settings

MIN_BLOCK = 512
"""Every block is a multiple of this."""
SMALL_SIZE = MIB
"""The largest block of the small pool."""
SMALL_SEGMENT = 2 * MIB
"""A segment of the small pool."""
MIN_LARGE_ALLOC = 10 * MIB
"""From here on a request gets a segment of its own size, rounded to `ROUND_LARGE`."""
ROUND_LARGE = 2 * MIB
"""What the size of such a segment is a multiple of."""


def round_up(size: int, multiple: int) -> int:
    """Return the smallest multiple that is not below a size."""
    return -(-size // multiple) * multiple


def round_size(requested: int, settings: Settings) -> int:
    """Return the bytes of the block that a request needs.

    >>> round_size(1, Settings()), round_size(513, Settings())
    (512, 1024)
    >>> round_size(1200 * 1024, Settings(roundup_power2_divisions=(4,) * 16)) // 1024
    1280
    """
    if requested < MIN_BLOCK:
        return MIN_BLOCK
    interval = min(max(requested.bit_length() - 1 - 20, 0), NUM_DIVISIONS - 1)
    divisions = settings.roundup_power2_divisions[interval]
    if divisions > 1 and requested > MIN_BLOCK * divisions:
        return _round_to_division(requested, divisions)
    return round_up(requested, MIN_BLOCK)


def _round_to_division(requested: int, divisions: int) -> int:
    """Return a size rounded up to the next of so many equal divisions between two powers of two."""
    floor = 1 << (requested.bit_length() - 1)
    if floor == requested:
        return requested
    step = floor >> (divisions.bit_length() - 1)
    return round_up(requested, step) if step else floor << 1


def rounding(settings: Settings) -> Callable[[int], int]:
    """Return `round_size` under these settings, as quick as it can be."""
    if max(settings.roundup_power2_divisions) <= 1:
        # A request of 0 bytes never reaches the allocator, but profiles of the CPU hold them.
        return lambda requested: (requested + 511) & -512 or MIN_BLOCK
    return lambda requested: round_size(requested, settings)


def rounded_sizes(requested: npt.NDArray[np.int64], settings: Settings) -> list[int]:
    """Return `round_size` of many requests."""
    if max(settings.roundup_power2_divisions) <= 1:
        whole: list[int] = np.maximum((requested + 511) & -512, MIN_BLOCK).tolist()
        return whole
    distinct, which = np.unique(requested, return_inverse=True)
    rounded: list[int] = np.array([round_size(one, settings) for one in distinct.tolist()], np.int64)[which].tolist()
    return rounded


def segment_size(size: int, settings: Settings) -> int:
    """Return the bytes asked of the driver to serve a block of this (rounded) size.

    >>> [segment_size(size, Settings()) // MIB for size in (512, 2 * MIB, 11 * MIB)]
    [2, 20, 12]
    """
    if size <= SMALL_SIZE:
        return SMALL_SEGMENT
    if size < MIN_LARGE_ALLOC:
        return settings.large_segment_size
    return round_up(size, ROUND_LARGE)
