"""What the program was doing at each alloc of a history without marks: forward, backward, recomputing or optimizing.

In: the allocs of a rank in the order of time. Out: one kind for each, `OTHER` where nothing tells. Stacks and
annotations tell most; steps that were recorded without frames repeat the sizes of steps that were recorded with them.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from memtrace.analysis.periods import copied_from_repeats
from memtrace.analysis.stack_roles import ENGINE, MODULE, PYTHON, RECOMPUTE, STEP, roles_of, stack_roles
from memtrace.store.columns import NULL, IntArray
from memtrace.store.trace import RankTrace

OTHER, FORWARD, BACKWARD, OPTIMIZER, AGAIN = range(5)
"""Kinds; `AGAIN` is the forward that checkpointing runs again inside a backward."""


def event_kinds(rank: RankTrace, rows: IntArray, spans: Sequence[tuple[int, int]]) -> IntArray:
    """Return the kind of each of these allocs, rows of the events table; spans are optimizer steps, Unix ns."""
    events = rank.table("events")
    stack, times, size_bytes = events["stack"][rows], events["time_ns"][rows], events["size_bytes"][rows]
    roles = roles_of(stack_roles(rank), stack)
    kinds = _by_roles(roles)
    if not (kinds == BACKWARD).any() or not _runs_engine_itself(rank, stack, roles):
        # Autograd's own threads have no Python: where others have stacks, what has none is theirs.
        bare = (stack == NULL) & (events["device"][rows] != rank.string_id("cpu"))
        # A lone alloc without a stack proves nothing: autograd makes many.
        if ((roles & PYTHON) > 0).any() and np.count_nonzero(bare) > 1:
            kinds[bare] = BACKWARD
    for start, end in spans:
        kinds[np.searchsorted(times, start) : np.searchsorted(times, end, side="right")] = OPTIMIZER
    # A step without frames still names the nodes of its backward, not the recomputation in it.
    named_only = ((roles & (ENGINE | PYTHON)) == ENGINE) & (kinds == BACKWARD) & (kinds == AGAIN).any()
    open_kinds = np.where(named_only, OTHER, kinds)
    copied = copied_from_repeats(size_bytes, open_kinds, can_change=(stack == NULL) | named_only)
    return np.where(named_only & (copied != AGAIN), BACKWARD, copied)


def _by_roles(roles: IntArray) -> IntArray:
    """Return what stacks alone say, the strongest last."""
    kinds = np.full(len(roles), OTHER, np.int64)
    kinds[(roles & MODULE) > 0] = FORWARD
    kinds[(roles & STEP) > 0] = OPTIMIZER
    kinds[(roles & ENGINE) > 0] = BACKWARD
    kinds[(roles & (RECOMPUTE | MODULE)) == RECOMPUTE | MODULE] = AGAIN
    kinds[(roles & RECOMPUTE > 0) & (kinds != AGAIN)] = BACKWARD
    return kinds


def _runs_engine_itself(rank: RankTrace, stack: IntArray, roles: IntArray) -> bool:
    """Return whether the thread that calls modules also runs autograd's engine, as on the CPU: from the same root."""
    root = _roots(rank)
    of_engine = np.unique(stack[((roles & ENGINE) > 0) & (stack != NULL)])
    of_program = np.unique(stack[((roles & (MODULE | STEP)) > 0) & ((roles & ENGINE) == 0) & (stack != NULL)])
    return bool(np.isin(root[of_engine], root[of_program]).any())


def _roots(rank: RankTrace) -> npt.NDArray[np.int64]:
    """Return for each stack the row of its outermost frame."""
    stacks = rank.table("stacks")
    roots: list[int] = []
    for frame, parent in zip(stacks["frame"].tolist(), stacks["parent"].tolist(), strict=True):
        roots.append(frame if parent == NULL else roots[parent])
    return np.array(roots, np.int64)
