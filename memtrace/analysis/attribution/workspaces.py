"""Workspaces of cuBLAS that no stack and no phase tells: made before the history, or seen without hooks.

Before compute capability 9 they have a size that hardly anything else has, and are kept to the end of the process. So
what nothing else explains, has exactly that size and never ends is one.
"""

from __future__ import annotations

import numpy as np

from memtrace.analysis.attribution.labels import Decided
from memtrace.analysis.events.lifetimes import Lifetimes
from memtrace.analysis.events.moments import Moments
from memtrace.schema.names import Category, Decision
from memtrace.schema.workspaces import SMALL_CUBLAS_BYTES


def give_workspaces(moments: Moments, lifetimes: Lifetimes, decided: Decided) -> None:
    """Decide what is left of a GPU's allocations by the size of a workspace. Affects: `decided`."""
    # At a gap every lifetime ends; what is there after it is another.
    stays = np.isin(lifetimes.in_use_end, [*moments.epoch_starts(), lifetimes.num_moments])
    chosen = decided.are_unknown() & stays & (lifetimes.size_bytes == SMALL_CUBLAS_BYTES)
    decided.give(np.flatnonzero(chosen), Category.WORKSPACE, Decision.LIFETIME_RULE)
