"""What keeps allocations that nobody owns: rows of the `keepers` table, each with the allocation that it names.

In: `DeviceHistory`. Out: `KeptAllocations`. A row names an address at a time; it means the allocation live there.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from memtrace.analysis.attribution.attribute import AllocationFinder
from memtrace.analysis.device.device_history import DeviceHistory
from memtrace.analysis.results.diagnosis import Keeper
from memtrace.store.columns import NULL, IntArray

_GRAPH = "graph of "
_LEAST_STEPS = 3
_LEAST_RATE = 0.7
"""How near a keeper's growth has to come to that of the memory that it is to explain."""
_LAST_KEY = re.compile(r"\['[^']*'\]$")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class KeptAllocations:
    """Rows of keepers whose allocation is known."""

    history: DeviceHistory
    row: IntArray
    """Row of the keepers table."""
    allocation: IntArray
    """Its row of `Lifetimes`."""
    is_old: npt.NDArray[np.bool_]
    """Whether the allocation had been there when the step of the row began."""

    @property
    def is_graph(self) -> npt.NDArray[np.bool_]:
        """Whether the allocation was found in the graph of a variable, by row."""
        rank = self.history.rank
        return np.asarray(rank.table("keepers")["kind"][self.row] == rank.string_id("graph"))

    def keeper_of(self, allocations: IntArray) -> Keeper | None:
        """Return what keeps most of the bytes of some allocations beyond the step in which they were made."""
        chosen = np.flatnonzero(self.is_old & np.isin(self.allocation, allocations))
        return self.largest(chosen)

    def keeper_of_all(self, allocations: IntArray) -> Keeper | None:
        """Return what keeps most of the bytes of some allocations; all under the keys of one object is kept by that."""
        together: dict[str, list[Keeper]] = {}
        for one in self.by_keeper(np.flatnonzero(self.is_old & np.isin(self.allocation, allocations))):
            together.setdefault(_LAST_KEY.sub("", one.text), []).append(one)
        found = [
            keepers[0]
            if len(keepers) == 1
            else replace(keepers[0], text=text, num_bytes=sum(one.num_bytes for one in keepers))
            for text, keepers in together.items()
        ]
        return max(found, key=lambda one: one.num_bytes, default=None)

    def largest(self, chosen: IntArray, *, without: Collection[str] = ()) -> Keeper | None:
        """Return of some of these rows the keeper with most bytes, each allocation counted once."""
        keepers = [one for one in self.by_keeper(chosen) if one.text not in without]
        return max(keepers, key=lambda one: one.num_bytes, default=None)

    def growing_keeper(self, bytes_per_step: int) -> Keeper | None:
        """Return the one keeper that holds about so much more in each step, whatever it holds then: a tensor that is
        put together anew from the one before, and more."""
        table = self.history.rank.table("keepers")
        found = []
        for text in np.unique(table["keeper"]).tolist():
            rows = np.flatnonzero(table["keeper"] == text)
            steps, last = np.unique(table["step"][rows][::-1], return_index=True)
            held = table["num_bytes"][rows[::-1][last]]
            if len(steps) < _LEAST_STEPS or not np.all(np.diff(held) > 0):
                continue
            rate = int(held[-1] - held[0]) / int(steps[-1] - steps[0])
            if _LEAST_RATE * bytes_per_step <= rate <= bytes_per_step / _LEAST_RATE:
                found.append(replace(self._keeper(int(rows[-1]), ()), num_bytes=int(held[-1]), kind="container"))
        return found[0] if len(found) == 1 else None

    def by_keeper(self, chosen: IntArray) -> list[Keeper]:
        """Return the keepers of some of these rows; a graph goes with the variable or list that keeps it."""
        table, text = self.history.rank.table("keepers"), self.history.rank.text
        met: dict[str, set[int]] = {}
        rows: dict[str, int] = {}
        # The latest row of an allocation says what keeps it to the last.
        last: dict[int, int] = {}
        for at in chosen[np.argsort(table["time_ns"][self.row[chosen]], kind="stable")].tolist():
            last[int(self.allocation[at])] = at
        for allocation, at in last.items():
            name = text(int(table["keeper"][self.row[at]])) or ""
            plain = name.removeprefix(_GRAPH)
            met.setdefault(plain, set()).add(allocation)
            # With a graph among it, the graph is what is kept.
            if plain not in rows or name.startswith(_GRAPH):
                rows[plain] = int(self.row[at])
        return [self._keeper(rows[name], allocations) for name, allocations in met.items()]

    def _keeper(self, row: int, allocations: Collection[int]) -> Keeper:
        values, text = self.history.rank.table("keepers").row(row), self.history.rank.text
        sizes = self.history.lifetimes.size_bytes
        return Keeper(
            text=text(values["keeper"]) or "",
            kind=text(values["kind"]) or "",
            where=_where(values, text),
            num_bytes=int(sum(int(sizes[one]) for one in allocations)),
        )


def kept_allocations(history: DeviceHistory) -> KeptAllocations | None:
    """Return which allocations something was found to keep; `None` where nothing was looked for, or found."""
    table = history.rank.table("keepers")
    if not len(table) or not history.moments.has_times:
        return None
    finder = AllocationFinder(history.moments, history.lifetimes)
    found = finder.find(table, history.rank.string_id(history.device))
    row = np.flatnonzero(found >= 0)
    if not len(row):
        return None
    steps = history.rank.table("steps")
    begins = dict(zip(steps["step"].tolist(), steps["start_ns"].tolist(), strict=True))
    start_ns = np.array([begins.get(step, NULL) for step in table["step"][row].tolist()], np.int64)
    first = history.moments.at_times(start_ns)
    # A stretch of the recording begins a moment after its first step does.
    was_there = (history.lifetimes.start[found[row]] <= first) | history.lifetimes.is_initial[found[row]]
    is_old = (start_ns != NULL) & was_there
    return KeptAllocations(history=history, row=row, allocation=found[row], is_old=is_old)


class SeenWrites(NamedTuple):
    """What two looks at some allocations, one after the other, showed."""

    looked_bytes: int
    """Bytes of those that were looked at twice."""
    written_bytes: int
    """Bytes of those that the program wrote to in between."""


def seen_writes(history: DeviceHistory, allocations: IntArray) -> SeenWrites:
    """Return to how much of some allocations the program was seen to write between two looks at who keeps them.

    Behind a gap they are told by address and size.
    """
    table, lifetimes = history.rank.table("keepers"), history.lifetimes
    rows = np.flatnonzero((table["is_written"] != NULL) & (table["device"] == history.rank.string_id(history.device)))
    seen: dict[tuple[int, int], bool] = {}
    columns = (table[name][rows].tolist() for name in ("address", "size_bytes", "is_written"))
    for address, size, is_written in zip(*columns, strict=True):
        seen[address, size] = seen.get((address, size), False) or bool(is_written)
    blocks = zip(lifetimes.address[allocations].tolist(), lifetimes.size_bytes[allocations].tolist(), strict=True)
    known = [block for block in blocks if block in seen]
    return SeenWrites(
        looked_bytes=sum(size for _, size in known),
        written_bytes=sum(size for address, size in known if seen[address, size]),
    )


def _where(values: dict[str, Any], text: Any) -> dict[str, Any] | None:
    file, function = (None if values[name] is None else text(values[name]) for name in ("file", "function"))
    if file is None:
        return None
    return {"file": file, "line": values["line"], "function": function, "module": None}
