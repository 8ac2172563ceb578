"""Which allocations are like others: asked for at the same place, with as many bytes."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from memtrace.analysis.events.lifetimes import Lifetimes
from memtrace.store.columns import NULL, IntArray


def like_any(
    lifetimes: Lifetimes, rows: IntArray, others: IntArray, *, needs_stack: bool = True
) -> npt.NDArray[np.bool_]:
    """Return whether each of some allocations has the size and the stack of any of the others.

    One without a stack is like none; where likeness `needs_stack` not, it is like others without.
    """
    both = np.concatenate([others, rows])
    kinds = np.stack([lifetimes.size_bytes[both], lifetimes.stack[both]])
    _, code = np.unique(kinds, axis=1, return_inverse=True)
    alike = np.isin(code[len(others) :], code[: len(others)])
    return np.asarray(alike & (lifetimes.stack[rows] != NULL) if needs_stack else alike)
