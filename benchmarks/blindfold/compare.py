"""How far inference is from the exact answer: bytes by true and by inferred category.

In: a rank that the hooks recorded, and what is left of it without them. Out: `Comparison`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from memtrace.analysis.attribution.attribute import CATEGORIES
from memtrace.analysis.attribution.inferred_marks import with_inferred_marks
from memtrace.analysis.device.device_history import DeviceHistory, build_history
from memtrace.schema.names import Category
from memtrace.store.trace import RankTrace

_UNKNOWN = CATEGORIES.index(Category.UNKNOWN)
Matrix = np.ndarray[Any, np.dtype[np.int64]]
"""Rows are true categories, columns inferred ones, both indices into `CATEGORIES`."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Comparison:
    """One recording, inferred and exact."""

    peak: Matrix
    """Bytes at the peak of the history that inference saw."""
    byte_moments: Matrix
    """Bytes times the events over which they were in use."""
    num_steps: int
    """Steps that inference found."""

    @property
    def wrong_share(self) -> float:
        """Bytes at the peak that got a wrong category, as a share of the peak. Without an answer none is wrong."""
        return _share(_wrong(self.peak), self.peak)

    @property
    def unknown_share(self) -> float:
        """Bytes at the peak that have an answer and got no category."""
        return _share(int(np.delete(self.peak[:, _UNKNOWN], _UNKNOWN).sum()), self.peak)

    @property
    def unanswered_share(self) -> float:
        """Bytes at the peak of which the hooks do not know either what they are."""
        return _share(int(self.peak[_UNKNOWN].sum()), self.peak)

    @property
    def wrong_share_of_byte_moments(self) -> float:
        """The same as `wrong_share`, over the whole history."""
        return _share(_wrong(self.byte_moments), self.byte_moments)


def compare(rank: RankTrace, seen: RankTrace, device: str) -> Comparison:
    """Return the comparison for one device of a rank, `seen` being all that inference gets of it."""
    exact = build_history(rank, device, owns_marks=True)
    marked = with_inferred_marks(seen)
    guessed = build_history(marked, device, owns_marks=True)
    pairs = _pairs(exact, guessed)
    moment = int(guessed.levels.requested.argmax())
    live = guessed.lifetimes
    return Comparison(
        peak=_matrix(exact, guessed, pairs, (live.start <= moment) & (live.in_use_end > moment)),
        byte_moments=_matrix(exact, guessed, pairs, live.in_use_end - live.start),
        num_steps=int(np.count_nonzero(marked.table("steps")["step"] > 0)),
    )


def _pairs(exact: DeviceHistory, guessed: DeviceHistory) -> tuple[Matrix, Matrix]:
    """Return rows of the exact answer, and the row of each in what inference saw: both end at the same event.

    An allocation that holds several things is several rows of the exact answer, one after the other.
    """
    late_by = len(exact.moments) - len(guessed.moments)
    row_of_end = np.full(len(exact.moments) + 1, -1)
    row_of_end[guessed.lifetimes.in_use_end + late_by] = np.arange(len(guessed.lifetimes))
    found = row_of_end[exact.lifetimes.in_use_end]
    # What never ends has its address to itself.
    stays = np.flatnonzero(exact.lifetimes.in_use_end == len(exact.moments))
    kept = np.flatnonzero(guessed.lifetimes.in_use_end == len(guessed.moments))
    kept = kept[np.argsort(guessed.lifetimes.address[kept])]
    below = np.searchsorted(guessed.lifetimes.address[kept], exact.lifetimes.address[stays], side="right") - 1
    found[stays] = kept[below] if len(kept) else -1
    rows = np.flatnonzero(found >= 0)
    return rows, found[rows]


def _matrix(exact: DeviceHistory, guessed: DeviceHistory, pairs: tuple[Matrix, Matrix], weight: Matrix) -> Matrix:
    matrix = np.zeros((len(CATEGORIES), len(CATEGORIES)), np.int64)
    of_exact, of_guess = pairs
    cell = exact.attribution.category[of_exact], guessed.attribution.category[of_guess]
    np.add.at(matrix, cell, exact.lifetimes.size_bytes[of_exact] * weight[of_guess])
    return matrix


def _wrong(matrix: Matrix) -> int:
    answered = np.delete(np.delete(matrix, _UNKNOWN, 0), _UNKNOWN, 1)
    return int(answered.sum() - np.trace(answered))


def _share(part: int, matrix: Matrix) -> float:
    return part / max(int(matrix.sum()), 1)
