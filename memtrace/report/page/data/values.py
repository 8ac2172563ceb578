"""What all views of a page share: long arrays, shares of a whole, and names of ranks and steps.

In: numbers of results. Out: JSON values. Long arrays are written once, as base64 of little-endian doubles (exact for
bytes and ns below 2**53), and the rest refers to them as {"$array": number}.
"""

from __future__ import annotations

import base64
import sys
from array import array
from collections.abc import Iterable
from typing import Any

from memtrace.analysis.results.report import RankReport, State
from memtrace.units import format_bytes

View = dict[str, Any]
"""What the page reads: JSON values under names that viewers/README.md lists."""
Reference = dict[str, int]
"""Stands for an array of the payload."""
NOT_RECORDED = "not recorded"


class Arrays:
    """The arrays of a page, each written once."""

    def __init__(self) -> None:
        self.encoded: list[str] = []

    def add(self, values: Iterable[float]) -> Reference:
        """Keep an array and return the reference to it."""
        doubles = array("d", values)
        if sys.byteorder == "big":
            doubles.byteswap()
        self.encoded.append(base64.b64encode(doubles.tobytes()).decode("ascii"))
        return {"$array": len(self.encoded) - 1}


def rank_label(rank: RankReport) -> str:
    """Return the heading of one rank: "rank 3 · cuda:3", or the device alone outside a distributed run."""
    return rank.device if rank.rank is None else f"rank {rank.rank} · {rank.device}"


def main_bytes(state: State) -> int | None:
    """Return allocated bytes, or requested bytes where allocated is not known; the card says which."""
    return state.requested_bytes if state.allocated_bytes is None else state.allocated_bytes


def step_name(step: int) -> str:
    """Return what a step is called; step 0 is what came before training."""
    return "before step 1" if step == 0 else f"step {step}"


def signed(num_bytes: int) -> str:
    """Return a difference in bytes with its sign."""
    return f"+{format_bytes(num_bytes)}" if num_bytes > 0 else format_bytes(num_bytes) if num_bytes else "same"


def share_of(part: int | None, whole: int | None) -> float:
    """Return the length of a bar from 0 to 1; 0 where either is not known."""
    return round(part / whole, 6) if part and whole else 0.0


def percent(part: int, whole: int) -> str:
    """Return a share for people: one decimal, and never 0 % for something that is there."""
    percent = 100 * part / whole if whole else 0.0
    return "< 0.1 %" if part and percent < 0.05 else f"{percent:.1f} %"
