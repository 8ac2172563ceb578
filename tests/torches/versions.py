"""Since which torch something works. `test_torches.py` holds it against the torch at hand and the README's table."""

from __future__ import annotations

FIRST_SUPPORTED = (2, 3)
FIRST_WITH_PREDICTIONS = (2, 6)
"""torch 2.3 lacks an operator that predictions name; 2.4 and 2.5 want events of torch's own class."""
FIRST_WITH_WALK = (2, 10)
"""Before it a saved value shows neither what it holds nor its hooks, so that the graph cannot be walked."""


def release(version: str) -> tuple[int, int]:
    """Return the first two numbers of a version: (2, 10) of "2.10.0+cu128"."""
    major, minor = version.split(".")[:2]
    return int(major), int(minor)
