"""Random numbers: the state of those outside torch, which a module may draw from, and where all of them start."""

from __future__ import annotations

import random
import sys
from typing import Any

State = tuple[Any, Any]


def state() -> State:
    """Return the states now; that of numpy only where the program has loaded it."""
    numpy: Any = sys.modules.get("numpy")
    drawn = getattr(numpy, "random", None)
    return random.getstate(), None if drawn is None else drawn.get_state()


def is_same(one: State, other: State) -> bool:
    """Return whether nothing was drawn between two states."""
    if one[0] != other[0] or (one[1] is None) != (other[1] is None):
        return False
    return one[1] is None or _plain(one[1]) == _plain(other[1])


def _plain(numpy_state: Any) -> tuple[Any, ...]:
    return tuple(one.tobytes() if hasattr(one, "tobytes") else one for one in numpy_state)


def put(wanted: State) -> None:
    """Let the next numbers be those that follow a state."""
    random.setstate(wanted[0])
    numpy: Any = sys.modules.get("numpy")
    if wanted[1] is not None and numpy is not None:
        numpy.random.set_state(wanted[1])


def start_alike(torch: Any, rank: int) -> None:
    """Let a program that names no seed draw the same numbers in each run, so that its losses can be compared."""
    torch.manual_seed(rank)
    random.seed(rank)
    numpy: Any = sys.modules.get("numpy")
    if hasattr(numpy, "random"):
        numpy.random.seed(rank)
