"""Allocations that are there again after a gap: with the address and size of what was live when the gap began."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from memtrace.analysis.events.lifetimes import Lifetimes
from memtrace.analysis.events.moments import Moments
from memtrace.store.columns import IntArray


def first_rows(lifetimes: Lifetimes, moments: Moments) -> IntArray:
    """Return for each allocation the row of itself, or of what it was before the gaps that it lived through."""
    own = np.arange(len(lifetimes))
    if len(moments.epochs) == 1:
        return own
    rows: IntArray = np.maximum.accumulate(np.where(_goes_on(lifetimes, moments), 0, own))
    return rows


def _goes_on(lifetimes: Lifetimes, moments: Moments) -> npt.NDArray[np.bool_]:
    """Return whether each allocation is that of the row before: rows are ordered by address and time."""
    stops = np.array([epoch.stop for epoch in moments.epochs], np.int64)
    epoch = np.searchsorted(stops, lifetimes.start, side="right")
    same = np.zeros(len(lifetimes), np.bool_)
    same[1:] = (
        lifetimes.is_initial[1:]
        & (lifetimes.address[1:] == lifetimes.address[:-1])
        & (lifetimes.size_bytes[1:] == lifetimes.size_bytes[:-1])
        & (epoch[1:] == epoch[:-1] + 1)
        & (lifetimes.in_use_end[:-1] == stops[epoch[:-1]])
    )
    return same
