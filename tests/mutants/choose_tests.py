"""Which tests are run against a fault: those that reach its statement, fastest first, within a budget of time."""

from __future__ import annotations

from tests.mutants.faults import Fault
from tests.mutants.known_names import KnownNames
from tests.mutants.reach import Reach
from tests.mutants.source import FUNCTIONS, Place

BUDGET_S = 25.0
"""Tests beyond this are left out: a survivor must not take minutes."""


def tests_for(fault: Fault, reach: Reach, known: KnownNames) -> list[str]:
    """Return the tests to run against a fault, in this order. Empty: no fast test reaches it."""
    chosen: list[str] = []
    left_s = BUDGET_S
    for nodeid in reach.fastest_first(_reaching(fault.source.path, fault.place, reach, known, set())):
        left_s -= reach.tests[nodeid].seconds
        if left_s < 0 and chosen:
            break
        chosen.append(nodeid)
    return chosen


def _reaching(path: str, place: Place, reach: Reach, known: KnownNames, seen: set[str]) -> set[str]:
    if isinstance(place.node, FUNCTIONS):
        # A default is evaluated when the function is defined, and shows where it runs.
        body = place.node.body
        return reach.tests_of(path, body[0].lineno, body[-1].end_lineno or body[-1].lineno)
    if place.function is not None:
        return reach.tests_of(path, place.first, place.last)
    if place.defines is None or place.defines in seen:
        return set()
    # It runs once, when the module is imported, and for no test in particular: it shows where its name is used.
    found: set[str] = set()
    for user_path, user in known.uses[place.defines]:
        found |= _reaching(user_path, user, reach, known, seen | {place.defines})
    return found
