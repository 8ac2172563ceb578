"""What each allocation is for, as far as rules have got: what every file that attributes memory completes in turn."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from memtrace.schema.names import Category, Decision, Role
from memtrace.store.columns import IntArray

CATEGORIES = tuple(Category)
"""Categories by their code."""
DECISIONS = tuple(Decision)
"""Decisions by their code."""
ROLES = tuple(Role)
"""Roles by their code."""

_BoolArray = npt.NDArray[np.bool_]
_Codes = npt.NDArray[np.int8]
_ALL = slice(None)


class Decided:
    """A category, a decision and a role for each allocation, all unknown at first.

    >>> decided = Decided(3)
    >>> decided.give(np.array([1]), Category.GRADIENT, Decision.OWNER)
    >>> decided.are(Category.GRADIENT).tolist(), decided.are_unknown().tolist()
    ([False, True, False], [True, False, True])
    """

    def __init__(self, num_allocations: int) -> None:
        self.category: _Codes = np.full(num_allocations, CATEGORIES.index(Category.UNKNOWN), np.int8)
        """Index into `CATEGORIES`."""
        self.decision: _Codes = np.full(num_allocations, DECISIONS.index(Decision.UNKNOWN), np.int8)
        """Index into `DECISIONS`."""
        self.role: _Codes = np.full(num_allocations, ROLES.index(Role.NONE), np.int8)
        """Index into `ROLES`."""

    def give(self, rows: IntArray, category: Category, decision: Decision, role: Role = Role.NONE) -> None:
        """Decide these rows, whatever was decided of them before."""
        self.category[rows] = CATEGORIES.index(category)
        self.decision[rows] = DECISIONS.index(decision)
        self.role[rows] = ROLES.index(role)

    def forget(self, rows: IntArray) -> None:
        """Make these rows unknown again."""
        self.give(rows, Category.UNKNOWN, Decision.UNKNOWN)

    def are(self, *categories: Category, among: IntArray | slice = _ALL) -> _BoolArray:
        """Return which allocations are of these categories, of all or among some rows."""
        return np.asarray(np.isin(self.category[among], [CATEGORIES.index(one) for one in categories]))

    def are_by(self, decision: Decision, among: IntArray | slice = _ALL) -> _BoolArray:
        """Return which allocations were decided in this way, of all or among some rows."""
        return np.asarray(self.decision[among] == DECISIONS.index(decision))

    def are_unknown(self, among: IntArray | slice = _ALL) -> _BoolArray:
        """Return which allocations nothing decided yet, of all or among some rows."""
        return self.are_by(Decision.UNKNOWN, among)

    def take(self, chosen: _BoolArray, other: Decided) -> None:
        """Decide the chosen allocations as another has decided them."""
        for mine, theirs in zip(self._codes(), other._codes(), strict=True):
            mine[chosen] = theirs[chosen]

    def _codes(self) -> tuple[_Codes, _Codes, _Codes]:
        return self.category, self.decision, self.role

    def copy(self) -> Decided:
        """Return the same, to be changed apart."""
        copied = Decided(len(self.category))
        copied.take(np.ones(len(self.category), np.bool_), self)
        return copied
