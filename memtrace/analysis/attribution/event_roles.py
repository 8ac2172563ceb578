"""What the program was doing at each alloc of a history without marks: forward, backward, recomputing or optimizing.

In: the events of a rank in the order of time. Out: flags of `stack_roles` and one kind for each alloc, `OTHER` where
nothing tells. Stacks and annotations tell most. A thread of autograd's has no Python. Steps that were recorded without
frames repeat the sizes of steps that were recorded with them, and take their flags.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from memtrace.analysis.attribution.profile_roles import profiled_roles
from memtrace.analysis.attribution.repeated_sizes import copied_from_repeats
from memtrace.analysis.attribution.stack_roles import (
    COMMUNICATION,
    ENGINE,
    MODULE,
    PYTHON,
    RECOMPUTE,
    STEP,
    roles_of,
    stack_roles,
)
from memtrace.schema.names import Action
from memtrace.store.columns import NULL, IntArray
from memtrace.store.trace import RankTrace

OTHER, FORWARD, BACKWARD, OPTIMIZER, AGAIN = range(5)
"""Kinds; `AGAIN` is the forward that checkpointing runs again inside a backward."""


def alloc_rows(rank: RankTrace) -> IntArray:
    """Return the rows of the events table that are allocs, in the order of time: one device may follow another."""
    events = rank.table("events")
    found: IntArray = np.flatnonzero(events["action"] == rank.string_id(Action.ALLOC.value))
    times = events["time_ns"][found]
    return found if np.all(times[1:] >= times[:-1]) else found[np.argsort(times, kind="stable")]


def alloc_roles(rank: RankTrace, rows: IntArray) -> IntArray:
    """Return the flags of each of these allocs: those of its stack, or those that its stack would have."""
    events = rank.table("events")
    stack = events["stack"][rows]
    roles = roles_of(stack_roles(rank), stack) | profiled_roles(rank, events["time_ns"][rows])
    bare = (stack == NULL) & (roles == 0)
    if not bare.all() and not _runs_engine_itself(rank, stack, roles):
        # Autograd's own threads have no Python: where others have stacks, what has none is theirs.
        threads = bare & (events["device"][rows] != rank.string_id("cpu"))
        # A lone alloc without a stack proves nothing: autograd makes many.
        if ((roles & PYTHON) > 0).any() and np.count_nonzero(threads) > 1:
            roles[threads] = ENGINE
            bare &= ~threads
    # A step without frames still names the nodes of its backward, not what they call.
    calls = ((roles & ENGINE) > 0) & ((roles & (RECOMPUTE | COMMUNICATION)) > 0)
    named_only = ((roles & (ENGINE | PYTHON)) == ENGINE) & (stack != NULL) & calls.any()
    codes = np.where(bare | named_only, 0, np.maximum(roles, 1))
    copied = copied_from_repeats(events["size_bytes"][rows], codes, can_change=bare | named_only)
    kept = (copied == 0) | (named_only & ((copied & ENGINE) == 0))
    return np.where(kept, roles, copied)


def alloc_kinds(roles: IntArray, times_ns: IntArray, spans: Sequence[tuple[int, int]]) -> IntArray:
    """Return the kind of each alloc from its flags and time; spans are optimizer steps, Unix ns."""
    kinds = np.full(len(roles), OTHER, np.int64)
    kinds[(roles & MODULE) > 0] = FORWARD
    kinds[(roles & STEP) > 0] = OPTIMIZER
    kinds[(roles & (ENGINE | RECOMPUTE)) > 0] = BACKWARD
    kinds[(roles & (RECOMPUTE | MODULE)) == RECOMPUTE | MODULE] = AGAIN
    for start, end in spans:
        kinds[np.searchsorted(times_ns, start) : np.searchsorted(times_ns, end, side="right")] = OPTIMIZER
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
