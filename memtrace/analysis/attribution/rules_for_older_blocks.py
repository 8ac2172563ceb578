"""What blocks are for that were live before a stretch of recording began, as after a gap between recorded steps.

In: the allocations of a recording, with what owners, saved tensors and lifetimes decided. Out: categories for more of
its initial blocks, all of them inferred. Two rules:

- A block that had lasted for steps when the stretch before ended, and is there again with its address and size, is what
  it was: data that stays through all of training.
- Blocks live after a step that the next one drops before its backward are the gradients of that step, if there are
  exactly as many of a size as there are parameters of it, or as were seen to have a gradient: others may be frozen.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from memtrace.analysis.attribution.labels import DECISIONS, Decided
from memtrace.analysis.attribution.parameter_sets import last_seen
from memtrace.analysis.events.lifetimes import Lifetimes
from memtrace.analysis.events.moments import Moments
from memtrace.analysis.events.over_gaps import first_rows
from memtrace.schema.names import Category, Decision, Phase
from memtrace.store.columns import NULL, IntArray
from memtrace.store.trace import RankTrace

_MIN_STEPS = 2
"""Ends of steps that a block lived through, to be called lasting."""


class InitialRules:
    """The rules for initial blocks, for `run` to apply."""

    def __init__(self, rank: RankTrace, moments: Moments, lifetimes: Lifetimes, decided: Decided) -> None:
        """Prepare; `decided` is what will be completed."""
        self._rank, self._moments, self._lifetimes = rank, moments, lifetimes
        self._decided = decided
        self._stops = np.array([epoch.stop for epoch in moments.epochs], np.int64)
        self._epoch = np.searchsorted(self._stops, lifetimes.start, side="right")

    def run(self) -> None:
        """Apply both rules."""
        if self._lifetimes.is_initial.any():
            self._carry_on()
            self._gradients()

    def _is_open(self) -> npt.NDArray[np.bool_]:
        """Return which allocations are initial blocks that nothing decided yet."""
        return np.asarray(self._lifetimes.is_initial & self._decided.are_unknown())

    def _carry_on(self) -> None:
        """Decide blocks that were there when the stretch before ended."""
        first = first_rows(self._lifetimes, self._moments)
        rows = np.flatnonzero((first != np.arange(len(first))) & self._is_open())
        rows = rows[self._num_steps_lived(first[rows]) >= _MIN_STEPS]
        decided = self._decided
        known = ~decided.are_unknown(first[rows])
        decided.category[rows], decided.role[rows] = decided.category[first[rows]], decided.role[first[rows]]
        decided.decision[rows[known]] = DECISIONS.index(Decision.LIFETIME_RULE)

    def _num_steps_lived(self, rows: IntArray) -> IntArray:
        """Return how many steps ended between each birth and the end of its stretch."""
        ends = self._rank.table("steps")["end_ns"]
        ends = np.sort(ends[ends != NULL])
        times = self._moments.time_ns
        last = times[self._stops[self._epoch[rows]] - 1]
        lived: IntArray = np.searchsorted(ends, last) - np.searchsorted(ends, times[self._lifetimes.start[rows]])
        return lived

    def _gradients(self) -> None:
        """Decide what the step before left and the next one drops before its backward, of the sizes of parameters."""
        sizes, counts = self._sizes_last_seen(Category.PARAMETER)
        columns = (column.tolist() for column in self._sizes_last_seen(Category.GRADIENT))
        with_gradient = dict(zip(*columns, strict=True))
        counts_of_gradients = np.array([with_gradient.get(size, 0) for size in sizes.tolist()], np.int64)
        starts = self._moments.epoch_starts()
        backward = self._first_backwards(self._moments.time_ns[starts])
        dropped_by = self._moments.at_times(backward)
        rows = np.flatnonzero(self._is_open() & np.isin(self._lifetimes.size_bytes, sizes))
        rows = rows[self._lifetimes.in_use_end[rows] <= dropped_by[self._epoch[rows]]]
        for epoch in np.unique(self._epoch[rows]).tolist():
            of_epoch = rows[self._epoch[rows] == epoch]
            size = np.searchsorted(sizes, self._lifetimes.size_bytes[of_epoch])
            number = np.bincount(size, minlength=len(sizes))
            is_whole = (number == counts) | (number == counts_of_gradients)
            found = of_epoch[is_whole[size]]
            self._decided.give(found, Category.GRADIENT, Decision.LIFETIME_RULE)

    def _sizes_last_seen(self, category: Category) -> tuple[IntArray, IntArray]:
        """Return the sizes of what is of a category when that was last seen, and how many there are of each."""
        rows = last_seen(self._rank, category)
        sizes, counts = np.unique(self._rank.table("owners")["size_bytes"][rows], return_counts=True)
        return sizes, counts

    def _first_backwards(self, times_ns: IntArray) -> IntArray:
        """Return when the first backward from each time on begins, if no phase runs at that time; else that time."""
        phases = self._rank.table("phases")
        is_backward = phases["phase"] == self._rank.string_id(Phase.BACKWARD.value)
        begins = np.sort(phases["start_ns"][is_backward])
        ends = np.where(phases["end_ns"] == NULL, np.iinfo(np.int64).max, phases["end_ns"])
        found: IntArray = times_ns.copy()
        for at, time_ns in enumerate(times_ns.tolist()):
            is_inside = np.any((phases["start_ns"] < time_ns) & (ends > time_ns))
            later = begins[begins >= time_ns]
            if not is_inside and len(later):
                found[at] = later[0]
        return found
