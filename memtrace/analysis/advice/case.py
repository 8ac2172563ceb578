"""The common ground of all advice: the level that peaks, and what the peak would be if something were not there.

In: `DeviceHistory`. Out: `Case`, which every kind of advice is asked about; `Cut`, the bytes that a change takes away.

A new peak is never the old one less what was live there: bytes are taken away over all moments, and the largest level
that remains is the new peak, wherever that is.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from memtrace.analysis.attribution.attribute import CATEGORIES
from memtrace.analysis.device.byte_levels import running_level
from memtrace.analysis.device.device_history import DeviceHistory
from memtrace.analysis.device.keepers import KeptAllocations, kept_allocations
from memtrace.analysis.device.shared_line import shared_line
from memtrace.analysis.events.lifetimes import Lifetimes
from memtrace.schema.names import Category, Phase
from memtrace.store.columns import NULL, IntArray

BoolArray = npt.NDArray[np.bool_]

WORTH_SAYING_SHARE = 0.02
"""The least part of a peak that advice must take off it."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Cut:
    """Bytes that would not be there: one stretch of moments a row."""

    start: IntArray
    """First moment of each stretch."""
    end: IntArray
    """First moment after it."""
    size_bytes: IntArray
    """Bytes that are not there in it; below zero, bytes that are there in addition."""
    rows: IntArray | None = None
    """The allocation that the bytes of each stretch are of, a row of lifetimes; `None` where none is known."""


class Case:
    """One device whose peak is to come down."""

    def __init__(self, history: DeviceHistory) -> None:
        self.history = history
        levels = history.levels
        self.level: IntArray = levels.requested if levels.allocated is None else levels.allocated
        """Bytes after each moment, of what peaks: allocated bytes, requested where those are not known."""
        self.peak_moment = int(np.argmax(self.level))
        self.peak_bytes = int(self.level[self.peak_moment])
        self.cuts_of: dict[int, tuple[Cut, ...]] = {}
        """The cuts that led to each new peak, by which what was promised can be replayed."""

    @property
    def lifetimes(self) -> Lifetimes:
        """The allocations."""
        return self.history.lifetimes

    @cached_property
    def kept(self) -> KeptAllocations | None:
        """What something was found to keep; `None` where nothing was looked for, or found."""
        return kept_allocations(self.history)

    @cached_property
    def live_at_peak(self) -> IntArray:
        """The rows of the allocations that are live at the peak."""
        return self.lifetimes.live_at(self.peak_moment)

    @cached_property
    def start_ns(self) -> IntArray:
        """The Unix time at which each allocation was made; null for those that were live before."""
        times: IntArray = self.history.moments.time_ns[self.lifetimes.start]
        return np.where(self.lifetimes.is_initial | (not self.history.moments.has_times), NULL, times)

    @cached_property
    def phase_row(self) -> IntArray:
        """The row of the phases table in which each allocation was made; -1 for none."""
        found = self.history.phases.innermost(self.start_ns)
        return np.where(self.start_ns == NULL, -1, found)

    @cached_property
    def by_start(self) -> IntArray:
        """The rows of the allocations that were made in the history, in the order in which they were."""
        rows = np.flatnonzero(~self.lifetimes.is_initial)
        return rows[np.argsort(self.lifetimes.start[rows], kind="stable")]

    @cached_property
    def starts(self) -> IntArray:
        """The moments at which the allocations of `by_start` were made, ascending."""
        return self.lifetimes.start[self.by_start]

    def in_phase(self, *phases: Phase) -> BoolArray:
        """Return whether each allocation was made in one of these phases."""
        rank = self.history.rank
        ids = [rank.string_id(phase.value) for phase in phases]
        # Row -1, no phase, reads the entry at the end.
        return np.append(np.isin(rank.table("phases")["phase"], ids), False)[self.phase_row]

    def is_category(self, *categories: Category) -> BoolArray:
        """Return whether each allocation is of one of these categories."""
        codes = [CATEGORIES.index(category) for category in categories]
        return np.isin(self.history.attribution.category, codes)

    def cut(self, rows: IntArray, size_bytes: IntArray | None = None, *, start: IntArray | None = None) -> Cut:
        """Return the cut of some allocations for as long as they live, or from given moments on: of all their bytes, or
        of as many as given."""
        return Cut(
            start=self.lifetimes.start[rows] if start is None else start,
            end=self.lifetimes.in_use_end[rows],
            size_bytes=self.lifetimes.size_bytes[rows] if size_bytes is None else size_bytes,
            rows=rows,
        )

    def at_peak(self, *cuts: Cut) -> int:
        """Return by how many bytes the cuts lower the level at the moment of the peak."""
        return sum(
            int(cut.size_bytes[(cut.start <= self.peak_moment) & (cut.end > self.peak_moment)].sum()) for cut in cuts
        )

    def num_at_peak(self, cut: Cut) -> int:
        """Return how many allocations of a cut it takes away at the moment of the peak."""
        return int(((cut.start <= self.peak_moment) & (cut.end > self.peak_moment)).sum())

    def line_above(self, rows: IntArray) -> dict[str, Any] | None:
        """Return the line of the program under which nearly all of some allocations were made, as `shared_line`."""
        stacks, sizes = self.lifetimes.stack[rows].tolist(), self.lifetimes.size_bytes[rows].tolist()
        return shared_line(self.history.rank, zip(stacks, sizes, strict=True))

    def level_without(self, *cuts: Cut) -> IntArray:
        """Return the level over all moments after the cuts."""
        level = self.level
        for cut in cuts:
            level = level - running_level(cut.start, cut.end, cut.size_bytes, len(level))
        return level

    def new_peak(self, *cuts: Cut) -> int | None:
        """Return the peak with these cuts; `None` where they take off too little to be worth saying."""
        least = WORTH_SAYING_SHARE * self.peak_bytes
        # The level at the old peak bounds the saving, and costs no pass over the moments.
        if self.peak_bytes <= 0 or self.at_peak(*cuts) < least:
            return None
        new_peak = self.peak_with(*cuts)
        return None if self.peak_bytes - new_peak < least else new_peak

    def peak_with(self, *cuts: Cut) -> int:
        """Return the peak with these cuts, whatever they take off it."""
        new_peak = int(self.level_without(*cuts).max())
        self.cuts_of[new_peak] = cuts
        return new_peak
