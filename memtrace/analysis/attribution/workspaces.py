"""Workspaces of cuBLAS that no stack and no phase tells: made before the history, or seen without hooks.

Their size follows from the GPU, and they are kept to the end of the process. So what nothing else explains, has exactly
that size and never ends is one. Of what was there before the history hardly anything else is known, and two workspaces
would be as good as a parameter and its gradient: they are told first. Before compute capability 9 the size is one that
hardly anything else has; a newer GPU's 32 MiB are those of many a weight, too, and a program that trains has two
workspaces anyway: so two blocks of that size are those, and of more nobody can tell which.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from memtrace.analysis.attribution.labels import Decided
from memtrace.analysis.events.lifetimes import Lifetimes
from memtrace.analysis.events.moments import Moments
from memtrace.schema.gpu_cards import CARDS, is_amd
from memtrace.schema.names import Category, Decision
from memtrace.schema.workspaces import (
    CONFIG_VARIABLE,
    ROCM_BLAS_BYTES,
    SMALL_CUBLAS_BYTES,
    cublas_workspace_bytes,
)
from memtrace.store.columns import NULL
from memtrace.store.trace import RankTrace

_MOST_AT_A_TIME = 4
"""Forward and backward have a handle each, and perhaps a second stream: as many weights of one size are a model's."""
_MOST_OF_ROUND_SIZE = 2
"""Of a size that other things have, too."""


def give_earlier_workspaces(rank: RankTrace, moments: Moments, lifetimes: Lifetimes, decided: Decided) -> None:
    """Decide what was there before the history, without a stack, by the size of a workspace. Affects: `decided`."""
    _give(rank, moments, lifetimes, decided, lifetimes.is_initial & (lifetimes.stack == NULL))


def give_workspaces(rank: RankTrace, moments: Moments, lifetimes: Lifetimes, decided: Decided) -> None:
    """Decide what is left of a GPU's allocations by the size of a workspace. Affects: `decided`."""
    _give(rank, moments, lifetimes, decided, np.ones(len(lifetimes), np.bool_))


def workspace_bytes(rank: RankTrace) -> int:
    """Return the bytes of a workspace on the GPUs of a rank; where their kind is not known, those of older ones."""
    kinds = {str(one.get("kind")) for one in rank.header.get("devices") or () if one.get("name") != "cpu"}
    cards = [card for card in CARDS.values() if card.name in kinds]
    if any(is_amd(card) for card in cards):
        return ROCM_BLAS_BYTES
    config = str((rank.header.get("environment") or {}).get(CONFIG_VARIABLE) or "")
    return cublas_workspace_bytes(max((card.capability for card in cards), default=(0, 0)), config)


def _give(
    rank: RankTrace, moments: Moments, lifetimes: Lifetimes, decided: Decided, among: npt.NDArray[np.bool_]
) -> None:
    size = workspace_bytes(rank)
    most = _MOST_AT_A_TIME if size == SMALL_CUBLAS_BYTES else _MOST_OF_ROUND_SIZE
    starts = moments.epoch_starts()
    # At a gap every lifetime ends; what is there after it is another.
    stays = np.isin(lifetimes.in_use_end, [*starts, lifetimes.num_moments])
    rows = np.flatnonzero(among & stays & (lifetimes.size_bytes == size) & decided.are_unknown())
    epoch = np.searchsorted(starts, lifetimes.start[rows], side="right")
    _, of_epoch, counts = np.unique(epoch, return_inverse=True, return_counts=True)
    decided.give(rows[counts[of_epoch] <= most], Category.WORKSPACE, Decision.LIFETIME_RULE)
