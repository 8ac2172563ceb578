"""Which tests are run against a fault: those that reach its statement, fastest first, within a budget of time.

The gold files are held against every fault that their recordings reach, whatever is left of the budget: they compare
all that is shown, which many fast tests of one sentence do not.
"""

from __future__ import annotations

import ast

from tests.mutants.faults import Fault
from tests.mutants.known_names import KnownNames
from tests.mutants.reach import Reach
from tests.mutants.source import FUNCTIONS, Function, Place

BUDGET_S = 25.0
"""Tests beyond this are left out: a survivor must not take minutes."""
WHOLE = "tests/gold/"
"""Tests that are never left out."""
CACHES = ("cache", "lru_cache", "cached_property")


def tests_for(fault: Fault, reach: Reach, known: KnownNames) -> list[str]:
    """Return the tests to run against a fault, in this order. Empty: no fast test reaches it."""
    chosen: list[str] = []
    left_s = BUDGET_S
    for nodeid in reach.fastest_first(_reaching(fault.source.path, fault.place, reach, known, set())):
        left_s -= reach.tests[nodeid].seconds
        if left_s >= 0 or not chosen or nodeid.startswith(WHOLE):
            chosen.append(nodeid)
    return chosen


def _reaching(path: str, place: Place, reach: Reach, known: KnownNames, seen: set[str]) -> set[str]:
    if isinstance(place.node, FUNCTIONS):
        # A default is evaluated when the function is defined, and shows where it runs.
        body = place.node.body
        return reach.tests_of(path, body[0].lineno, body[-1].end_lineno or body[-1].lineno)
    if place.function is not None:
        found = reach.tests_of(path, place.first, place.last)
        # What a cache holds was worked out for the first test that asked, and shows in all that ask.
        return found | _using(place.function.name, reach, known, seen) if _is_cached(place.function) else found
    # It runs once, when the module is imported, and for no test in particular: it shows where its name is used.
    return set() if place.defines is None else _using(place.defines, reach, known, seen)


def _using(name: str, reach: Reach, known: KnownNames, seen: set[str]) -> set[str]:
    found: set[str] = set()
    if name not in seen:
        for path, user in known.uses[name]:
            found |= _reaching(path, user, reach, known, seen | {name})
    return found


def _is_cached(function: Function) -> bool:
    return any(ast.unparse(one).split("(")[0].split(".")[-1] in CACHES for one in function.decorator_list)
