"""What a profile of torch says about an alloc, which has no stack there: which ranges of the profile it lies in.

In: the activities of a profile. Out: flags of `stack_roles` for moments in time. A module that is called is a range of
its own where the profile has Python (`with_stack` or `with_modules`); each node of autograd always is.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from memtrace.analysis.attribution.stack_roles import ENGINE, MODULE, RECOMPUTE
from memtrace.store.columns import NULL, IntArray
from memtrace.store.trace import RankTrace

_MODULE, _NODE = "nn.Module: ", "autograd::engine::evaluate_function"


def profiled_roles(rank: RankTrace, times_ns: IntArray) -> IntArray:
    """Return the flags of what ran at each of these Unix times."""
    roles = np.zeros(len(times_ns), np.int64)
    in_module, in_node = (_inside(rank, times_ns, start) for start in (_MODULE, _NODE))
    roles[in_module] |= MODULE
    roles[in_node] |= ENGINE
    # A module inside a node of autograd is one that checkpointing calls again.
    roles[in_module & in_node] |= RECOMPUTE
    return roles


def _inside(rank: RankTrace, times_ns: IntArray, name_start: str) -> npt.NDArray[np.bool_]:
    """Return which times lie in an activity whose name starts like this."""
    table = rank.table("kernels")
    named = [at for at, text in enumerate(rank.strings) if text.startswith(name_start)] if len(table) else []
    rows = np.flatnonzero(np.isin(table["name"], named) & (table["start_ns"] != NULL))
    starts = np.sort(table["start_ns"][rows])
    ends = np.sort(table["start_ns"][rows] + table["duration_ns"][rows])
    begun = np.searchsorted(starts, times_ns, side="right")
    return np.asarray(begun > np.searchsorted(ends, times_ns, side="left"))
