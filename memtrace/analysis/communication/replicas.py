"""How DistributedDataParallel reduces gradients: sizes of buckets, which backward reduces them, and when.

In: a recorded rank. Out: `ReplicaResult`s. Sizes and flags are DDP's own words. A reduction is needless where the same
model has another backward pass in the same step before any optimizer runs: that one's reduction covers both.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from memtrace.analysis.communication.bucket_starts import bucket_starts
from memtrace.analysis.results.communication import ReducerTime, ReplicaResult
from memtrace.schema.names import Phase
from memtrace.store.columns import NULL, IntArray
from memtrace.store.trace import RankTrace


@dataclass(frozen=True, slots=True, kw_only=True)
class _Backward:
    """One micro-batch of a replicated model that had a backward pass."""

    step: int
    start_ns: int
    end_ns: int
    reduces: bool
    needless: bool
    """Whether it reduces gradients that a later backward of the step reduces again, with no optimizer between."""


def replica_results(rank: RankTrace) -> tuple[ReplicaResult, ...]:
    """Return how each replicated model of a rank was reduced."""
    numbers = {*rank.table("buckets")["replica"].tolist(), *rank.table("replica_forwards")["replica"].tolist()}
    return tuple(_result(rank, number) for number in sorted(numbers))


def _result(rank: RankTrace, replica: int) -> ReplicaResult:
    sizes, rebuilt = _buckets(rank, replica)
    backwards = _backwards(rank, replica)
    reducing = [(one.start_ns, one.end_ns) for one in backwards if one.reduces]
    starts = bucket_starts(rank, reducing, len(sizes))
    timings = rank.table("reducer_timings")
    of_replica = timings["replica"] == replica
    unused = timings["unused_bytes"][of_replica]
    unused = unused[unused != NULL]
    return ReplicaResult(
        replica=replica,
        bucket_bytes=sizes,
        rebuilt=rebuilt,
        bucket_starts_ns=() if starts is None else starts.offsets_ns,
        backward_ns=None if starts is None else starts.backward_ns,
        num_steps=len({one.step for one in backwards}),
        num_backwards=len(backwards),
        num_reductions=len(reducing),
        num_needless=sum(one.needless for one in backwards),
        unused_bytes=int(unused[0]) if len(unused) else None,
        time=_reducer_time(rank, of_replica.nonzero()[0]),
    )


def _buckets(rank: RankTrace, replica: int) -> tuple[tuple[int, ...], bool]:
    """Return the sizes of a model's buckets as last read, and whether they had been rebuilt."""
    table = rank.table("buckets")
    rows = np.flatnonzero(table["replica"] == replica)
    if not len(rows):
        return (), False
    last = rows[table["time_ns"][rows] == table["time_ns"][rows].max()]
    last = last[np.argsort(table["bucket"][last])]
    return tuple(table["size_bytes"][last].tolist()), bool(table["rebuilt"][last[0]])


def _backwards(rank: RankTrace, replica: int) -> list[_Backward]:
    """Return the micro-batches of a replicated model that had a backward pass, in order."""
    reduces: dict[tuple[int, int], bool] = {}
    for row in rank.table("replica_forwards").rows():
        if row["replica"] == replica:
            key = row["step"], row["microbatch"]
            # Two forwards before one backward are one reduction.
            reduces[key] = reduces.get(key, False) or row["synchronizes"]
    spans = _phase_spans(rank, Phase.BACKWARD)
    known = sorted((*spans[key], *key) for key in reduces if key in spans)
    optimizers = np.array(sorted(row["start_ns"] for row in _rows(rank, Phase.OPTIMIZER)), np.int64)
    done = np.searchsorted(optimizers, [start for start, *_ in known])
    found: list[_Backward] = []
    after: tuple[int, int] | None = None
    # From the end: a reduction that follows, up to the next optimizer, covers all before it.
    for (start_ns, end_ns, step, microbatch), optimizer in zip(reversed(known), reversed(done.tolist()), strict=True):
        mine, span = reduces[step, microbatch], (step, optimizer)
        needless = mine and after == span
        found.append(_Backward(step=step, start_ns=start_ns, end_ns=end_ns, reduces=mine, needless=needless))
        after = span if mine else after
    return found[::-1]


def _phase_spans(rank: RankTrace, phase: Phase) -> dict[tuple[int, int], tuple[int, int]]:
    """Return for each step and micro-batch from when to when a phase ran, from its first start to its last end."""
    spans: dict[tuple[int, int], tuple[int, int]] = {}
    for row in _rows(rank, phase):
        key = row["step"], row["microbatch"]
        start_ns, end_ns = spans.get(key, (row["start_ns"], row["end_ns"]))
        spans[key] = min(start_ns, row["start_ns"]), max(end_ns, row["end_ns"])
    return spans


def _rows(rank: RankTrace, phase: Phase) -> Iterator[dict[str, int]]:
    """Yield the rows of a phase that have an end."""
    table = rank.table("phases")
    chosen = (table["phase"] == rank.string_id(phase.value)) & ~table.is_null("end_ns")
    return (table.row(at) for at in np.flatnonzero(chosen).tolist())


def _reducer_time(rank: RankTrace, rows: IntArray) -> ReducerTime | None:
    if not len(rows):
        return None
    table = rank.table("reducer_timings")
    # In the first iteration connections are made as well.
    later = rows[table["iteration"][rows] > 1]
    rows = later if len(later) else rows
    backward, communication, overlap = (
        int(table[name][rows].sum()) // len(rows) for name in ("backward_ns", "communication_ns", "overlap_ns")
    )
    return ReducerTime(
        num_timed=len(rows),
        backward_ns=backward,
        start_ns=max(backward - overlap, 0),
        communication_ns=communication,
        exposed_ns=max(communication - overlap, 0),
    )
