"""What graphs keep that no backward went through: seen in them when a step ended, or made where such things were.

In: the `keepers` table, of which some rows were found in the graph of a variable, and what is decided so far. What the
walk met there autograd keeps, so it is exact; of a keeper that has many, the recording names some, and of the others it
is inferred.
"""

from __future__ import annotations

import numpy as np

from memtrace.analysis.attribution.labels import ROLES, Decided
from memtrace.analysis.events.alike import like_any
from memtrace.analysis.events.lifetimes import Lifetimes
from memtrace.schema.names import Category, Decision, Role
from memtrace.store.columns import IntArray


def give_found_in_graphs(decided: Decided, found: IntArray) -> None:
    """Decide what was found in graphs."""
    decided.give(found, Category.ACTIVATION, Decision.HOOK, Role.SAVED)


def give_alike(decided: Decided, lifetimes: Lifetimes, found: IntArray) -> None:
    """Take outputs that have stack and size of what was found in graphs to be kept by them, too."""
    outputs = np.flatnonzero(decided.are(Category.ACTIVATION) & (decided.role == ROLES.index(Role.OUTPUT)))
    alike = outputs[like_any(lifetimes, outputs, found)]
    decided.give(alike, Category.ACTIVATION, Decision.LIFETIME_RULE, Role.SAVED)
