"""Allocated bytes at every moment of an accelerator's history, from the replay in the model of the caching allocator.

In: a rank, a device and its moments. Out: `Replayed`. A level is given only where the model reproduced the whole
history, address by address; an approximation is never shown.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from memtrace.allocator.replay import Prepared, Refused, prepare, replay_prepared
from memtrace.allocator.results import Fidelity, Replay
from memtrace.analysis.events.moments import Moments
from memtrace.paused_gc import paused_gc
from memtrace.schema.names import Source
from memtrace.store.columns import IntArray
from memtrace.store.trace import RankTrace


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Replayed:
    """What the model of the allocator says about one device."""

    fidelity: Fidelity
    """How far it reproduced the history."""
    allocated: IntArray | None
    """Whole blocks in use at each moment; `None` unless all of the history was reproduced and leaves no doubt."""
    unsure_bytes: int
    """By how much they could be larger at most, at some moment: remainders that no event shows."""
    replay: Replay
    """The replay itself: block by block."""
    prepared: Prepared | Refused
    """The history that was replayed and the state before it, from which changed requests can be."""


def replay_history(rank: RankTrace, device: str, moments: Moments) -> Replayed | None:
    """Return the replay of a device; `None` where there is nothing to replay: no history, or no segments (the CPU)."""
    if device == "cpu" or rank.source == Source.KINETO.value or not len(moments.rows):
        return None
    if not (rank.table("segments")["device"] == rank.string_id(device)).any():
        return None
    with paused_gc():
        prepared = prepare(rank, device)
        replay = replay_prepared(prepared)
    unsure_bytes = max(replay.unsure_start_bytes, int(replay.unsure_bytes.max(initial=0)))
    allocated = None if unsure_bytes else _over_moments(replay, moments)
    return Replayed(
        fidelity=replay.fidelity, allocated=allocated, unsure_bytes=unsure_bytes, replay=replay, prepared=prepared
    )


def _over_moments(replay: Replay, moments: Moments) -> IntArray | None:
    """Return the level over all moments, if the replay covers them: one epoch, reproduced without a divergence."""
    if not replay.fidelity.is_exact or replay.start is None or len(moments.epochs) != 1:
        return None
    at = np.searchsorted(moments.rows, replay.rows)
    if not len(at) or not np.array_equal(moments.rows[at], replay.rows):
        return None
    deltas = np.zeros(len(moments), np.int64)
    deltas[0] = replay.start.allocated_bytes
    # Events without a change (marks) lie between those that were replayed.
    deltas[moments.of_event[at]] = np.diff(replay.allocated_bytes, prepend=replay.start.allocated_bytes)
    return np.cumsum(deltas)
