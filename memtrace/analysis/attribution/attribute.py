"""What each allocation is for, and how that was decided.

In: the allocations of a device, and what the hooks knew: owners (storage → parameter, gradient …) and saved tensors.
Out: `Attribution`, a category and a decision for each allocation. What neither names is inferred from where in the loop
it was born and died (`lifetime_rules`, `initial_rules`); `unknown` wherever that does not tell. Where
there are no owners and saved tensors at all, as in a snapshot, every category is inferred.

An owner or saved row names an address at a time; it means the allocation that was live there then. Views and tied
parameters share a storage, hence an allocation, and count once. An allocation has one category for its whole life: the
strongest that anything ever gave it, an owner before a hook, and among owners the one that lasts longest:
parameter, buffer, optimizer_state, gradient, then input. (A gradient buffer that autograd also saved is a gradient.)
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from memtrace.analysis.attribution.inference import infer
from memtrace.analysis.attribution.kept_graphs import give_alike, give_found_in_graphs
from memtrace.analysis.attribution.labels import CATEGORIES as CATEGORIES
from memtrace.analysis.attribution.labels import DECISIONS as DECISIONS
from memtrace.analysis.attribution.labels import ROLES as ROLES
from memtrace.analysis.attribution.labels import Decided
from memtrace.analysis.attribution.left_before_gap import LeftBeforeGap
from memtrace.analysis.attribution.lifetime_rules import LifetimeRules
from memtrace.analysis.attribution.rules_for_older_blocks import InitialRules
from memtrace.analysis.attribution.workspaces import give_earlier_workspaces, give_workspaces
from memtrace.analysis.events.lifetimes import Lifetimes
from memtrace.analysis.events.moments import Moments
from memtrace.schema.names import Category, Decision, Role
from memtrace.store.columns import NULL, ColumnTable, IntArray
from memtrace.store.trace import RankTrace

_OWNER_ORDER = (
    Category.PARAMETER,
    Category.BUFFER,
    Category.OPTIMIZER_STATE,
    Category.GRADIENT,
    Category.COMMUNICATION,
    Category.WORKSPACE,
    Category.INPUT,
)
"""Categories that an owner may give, the strongest first."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Attribution:
    """A category and a decision for each row of `Lifetimes`."""

    category: npt.NDArray[np.int8]
    """Index into `CATEGORIES`."""
    decision: npt.NDArray[np.int8]
    """Index into `DECISIONS`."""
    role: npt.NDArray[np.int8]
    """Index into `ROLES`."""
    owner_row: IntArray
    """Row of owners that gave the category; null where none did."""
    saved_row: IntArray
    """Row of saved that names it, whatever its category; null where none does."""
    allocation_of_owner: IntArray
    """For each row of owners the row of `Lifetimes` that it names; negative where none is known, or of this device."""
    num_unmatched_storages: int
    """Storages with an owner that no recorded allocation holds."""
    unmatched_bytes: int
    """Their bytes."""


def attribute(rank: RankTrace, device: str, moments: Moments, lifetimes: Lifetimes) -> Attribution:
    """Return what the allocations of a device are for."""
    decided = Decided(len(lifetimes))
    owner_row, saved_row = np.full(len(lifetimes), NULL, np.int64), np.full(len(lifetimes), NULL, np.int64)
    owners, saved, keepers = rank.table("owners"), rank.table("saved"), rank.table("keepers")
    of_owner, unmatched = np.full(len(owners), AllocationFinder.ABSENT, np.int64), (0, 0)
    if len(owners) or len(saved):
        finder = AllocationFinder(moments, lifetimes)
        in_graphs = finder.find(keepers, rank.string_id(device))[keepers["kind"] == rank.string_id("graph")]
        in_graphs = np.unique(in_graphs[in_graphs >= 0])
        give_found_in_graphs(decided, in_graphs)
        live = finder.find(saved, rank.string_id(device))
        named = np.flatnonzero(live >= 0)
        decided.give(live[named], Category.ACTIVATION, Decision.HOOK, Role.SAVED)
        saved_row[live[named]] = named
        of_owner = finder.find(owners, rank.string_id(device))
        for name in reversed(_OWNER_ORDER):
            named = np.flatnonzero((owners["category"] == rank.string_id(name.value)) & (of_owner >= 0))
            rows = of_owner[named]
            decided.give(rows, name, Decision.OWNER)
            owner_row[rows] = named
        unmatched = _unmatched(owners, of_owner == AllocationFinder.ABSENT)
        if len(rank.table("phases")) and moments.has_times:
            LifetimeRules(rank, moments, lifetimes, decided).run()
            give_alike(decided, lifetimes, in_graphs)
            InitialRules(rank, moments, lifetimes, decided).run()
            LeftBeforeGap(rank, moments, lifetimes, decided).run()
    else:
        if device != "cpu":
            give_earlier_workspaces(rank, moments, lifetimes, decided)
        infer(rank, moments, lifetimes, decided)
    if device != "cpu":
        give_workspaces(rank, moments, lifetimes, decided)
    return Attribution(
        category=decided.category,
        decision=decided.decision,
        role=decided.role,
        owner_row=owner_row,
        saved_row=saved_row,
        allocation_of_owner=of_owner,
        num_unmatched_storages=unmatched[0],
        unmatched_bytes=unmatched[1],
    )


def _unmatched(owners: ColumnTable, absent: npt.NDArray[np.bool_]) -> tuple[int, int]:
    """Return number and bytes of the distinct storages among the absent rows."""
    _, first = np.unique(owners["address"][absent], return_index=True)
    return len(first), int(owners["size_bytes"][absent][first].sum())


class AllocationFinder:
    """Finds the allocation that was live at an address at a time: one search over (address, start).

    Both are one number: the place of the address among all, times more than there are moments, plus the moment. Of 10
    moments, what began at moment 4 at the second address has the key 1 * 11 + 4 = 15. Asked for moment 7 there, the
    search for 18 ends at it; no start at the first address, 10 at most, is reached.
    """

    ABSENT = -1
    OTHER_DEVICE = -2

    def __init__(self, moments: Moments, lifetimes: Lifetimes) -> None:
        self._moments = moments
        self._lifetimes = lifetimes
        order = np.lexsort((lifetimes.start, lifetimes.address))
        self._addresses, code = np.unique(lifetimes.address[order], return_inverse=True)
        self._order = order
        self._scale = len(moments) + 1
        self._keys = code * self._scale + lifetimes.start[order]

    def find(self, table: ColumnTable, device: int) -> IntArray:
        """Return, for each row of owners or saved, the row of its allocation, `ABSENT` or `OTHER_DEVICE`."""
        found = np.full(len(table), self.OTHER_DEVICE, np.int64)
        rows = np.flatnonzero((table["device"] == device) & (table["address"] != NULL) & (table["size_bytes"] > 0))
        if len(self._order):
            found[rows] = self._find(table["address"][rows], self._moments.at_times(table["time_ns"][rows]))
        else:
            found[rows] = self.ABSENT
        return found

    def _find(self, address: IntArray, moment: IntArray) -> IntArray:
        code = np.minimum(np.searchsorted(self._addresses, address), len(self._addresses) - 1)
        position = np.searchsorted(self._keys, code * self._scale + moment, side="right") - 1
        row = self._order[np.maximum(position, 0)]
        is_live = (position >= 0) & (self._lifetimes.address[row] == address) & (self._lifetimes.end[row] > moment)
        return np.where(is_live, row, self.ABSENT)
