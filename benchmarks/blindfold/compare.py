"""How far inference is from the exact answer: bytes by true and by inferred category.

In: a rank that the hooks recorded, and what is left of it without them. Out: `Comparison`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from memtrace.analysis.attribution import CATEGORIES
from memtrace.analysis.history import DeviceHistory, build_history
from memtrace.analysis.inferred_marks import with_inferred_marks
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
    return Comparison(
        peak=_matrix(exact, guessed, pairs, _at(guessed, moment)),
        byte_moments=_matrix(exact, guessed, pairs, _durations(guessed)),
        num_steps=int(np.count_nonzero(marked.table("steps")["step"] > 0)),
    )


def _pairs(exact: DeviceHistory, guessed: DeviceHistory) -> Matrix:
    """Return for each allocation that inference saw its row in the exact answer: both end at the same event."""
    late_by = len(exact.moments) - len(guessed.moments)
    keys = {
        (address, end): row
        for row, (address, end) in enumerate(
            zip(exact.lifetimes.address.tolist(), exact.lifetimes.in_use_end.tolist(), strict=True)
        )
    }
    found = zip(guessed.lifetimes.address.tolist(), (guessed.lifetimes.in_use_end + late_by).tolist(), strict=True)
    return np.array([keys[key] for key in found], np.int64)


def _at(history: DeviceHistory, moment: int) -> Matrix:
    live = history.lifetimes
    return ((live.start <= moment) & (live.in_use_end > moment)).astype(np.int64)


def _durations(history: DeviceHistory) -> Matrix:
    return history.lifetimes.in_use_end - history.lifetimes.start


def _matrix(exact: DeviceHistory, guessed: DeviceHistory, pairs: Matrix, weight: Matrix) -> Matrix:
    matrix = np.zeros((len(CATEGORIES), len(CATEGORIES)), np.int64)
    cell = exact.attribution.category[pairs], guessed.attribution.category
    np.add.at(matrix, cell, guessed.lifetimes.size_bytes * weight)
    return matrix


def _wrong(matrix: Matrix) -> int:
    answered = np.delete(np.delete(matrix, _UNKNOWN, 0), _UNKNOWN, 1)
    return int(answered.sum() - np.trace(answered))


def _share(part: int, matrix: Matrix) -> float:
    return part / max(int(matrix.sum()), 1)
