"""Workspaces of cuBLAS that no stack and no phase tells: made before the history, or seen without hooks.

Before compute capability 9 they have a size that hardly anything else has, and are kept to the end of the process. So
what nothing else explains, has exactly that size and never ends is one. Of what was there before the history hardly
anything else is known, and two workspaces would be as good as a parameter and its gradient: they are told first.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from memtrace.analysis.attribution.labels import Decided
from memtrace.analysis.events.lifetimes import Lifetimes
from memtrace.analysis.events.moments import Moments
from memtrace.schema.names import Category, Decision
from memtrace.schema.workspaces import SMALL_CUBLAS_BYTES
from memtrace.store.columns import NULL

_MOST_AT_A_TIME = 4
"""Forward and backward have a handle each, and perhaps a second stream: as many weights of one size are a model's."""


def give_earlier_workspaces(moments: Moments, lifetimes: Lifetimes, decided: Decided) -> None:
    """Decide what was there before the history, without a stack, by the size of a workspace. Affects: `decided`."""
    _give(moments, lifetimes, decided, lifetimes.is_initial & (lifetimes.stack == NULL))


def give_workspaces(moments: Moments, lifetimes: Lifetimes, decided: Decided) -> None:
    """Decide what is left of a GPU's allocations by the size of a workspace. Affects: `decided`."""
    _give(moments, lifetimes, decided, np.ones(len(lifetimes), np.bool_))


def _give(moments: Moments, lifetimes: Lifetimes, decided: Decided, among: npt.NDArray[np.bool_]) -> None:
    starts = moments.epoch_starts()
    # At a gap every lifetime ends; what is there after it is another.
    stays = np.isin(lifetimes.in_use_end, [*starts, lifetimes.num_moments])
    rows = np.flatnonzero(among & stays & (lifetimes.size_bytes == SMALL_CUBLAS_BYTES) & decided.are_unknown())
    epoch = np.searchsorted(starts, lifetimes.start[rows], side="right")
    _, of_epoch, counts = np.unique(epoch, return_inverse=True, return_counts=True)
    decided.give(rows[counts[of_epoch] <= _MOST_AT_A_TIME], Category.WORKSPACE, Decision.LIFETIME_RULE)
