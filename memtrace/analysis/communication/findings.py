"""Advice about communication that hooks saw: gradients that are reduced needlessly, and reductions that nothing hides.

In: a rank, what it exchanges, and its times. Out: `Finding`s. Bytes are facts; times are those of the profile where
there is one, else those that DistributedDataParallel took of itself, else not known.
"""

from __future__ import annotations

from memtrace.analysis.results.communication import CommunicationResult, ReplicaResult
from memtrace.analysis.results.report import Finding
from memtrace.analysis.results.step_times import StepTimes
from memtrace.analysis.results.time import TimeResult
from memtrace.analysis.time.early_reduces import early_reduces
from memtrace.store.trace import RankTrace
from memtrace.units import format_bytes

_MIN_SHARE = 50
"""What would save less than a 50th of the step is a remark, or not told."""


def communication_findings(
    rank: RankTrace, communication: CommunicationResult, steps: StepTimes | None, time: TimeResult | None
) -> tuple[Finding, ...]:
    """Return what a rank could leave out of its communication, or hide."""
    step_ns = None if steps is None or steps.throughput is None else steps.throughput.step_ns
    needless = (_no_sync(rank, one, step_ns, time) for one in communication.replicas if one.num_needless)
    exposed = (_exposed(rank, one, step_ns) for one in communication.replicas if time is None)
    return (*needless, *(one for one in exposed if one is not None))


def _no_sync(rank: RankTrace, replica: ReplicaResult, step_ns: int | None, time: TimeResult | None) -> Finding:
    """Return the advice to reduce gradients once a step."""
    saves_ns = _needless_ns(rank, replica, time)
    is_small = saves_ns is not None and step_ns is not None and saves_ns * _MIN_SHARE < step_ns
    num_bytes = replica.needless_bytes // replica.num_steps
    moved = f": {format_bytes(num_bytes)} a step" if num_bytes else ""
    return Finding(
        slug="no-sync",
        severity="info" if is_small else "warning",
        title=f"Gradients are reduced in micro-batches before the last{moved}",
        evidence={
            "num_needless": replica.num_needless,
            "num_reductions": replica.num_reductions,
            "num_steps": replica.num_steps,
            "reduction_bytes": replica.total_bytes or None,
            "needless_bytes": num_bytes or None,
            "step_ns": step_ns,
            "rests_on_inference": False,
        },
        change="Run forward and backward of every micro-batch but the last under `with model.no_sync():`, so that "
        "gradients are reduced once a step.",
        cost="None for DistributedDataParallel, whose gradients are whole on every rank anyway.",
        saves_bytes=None,
        saves_ns=saves_ns,
        new_peak_bytes=None,
        rank=rank.rank,
        where=None,
    )


def _needless_ns(rank: RankTrace, replica: ReplicaResult, time: TimeResult | None) -> int | None:
    """Return the time a step that needless reductions take while nothing is computed."""
    if time is not None and time.steps:
        early = early_reduces(rank, {one.step for one in time.steps if one.step is not None})
        return None if early is None else early.exposed_ns // len(time.steps)
    if replica.time is None:
        return None
    return replica.time.exposed_ns * replica.num_needless // replica.num_steps


def _exposed(rank: RankTrace, replica: ReplicaResult, step_ns: int | None) -> Finding | None:
    """Return the advice to hide reductions of which backward leaves a part uncovered."""
    if replica.time is None or step_ns is None or not replica.num_steps:
        return None
    needed = replica.num_reductions - replica.num_needless
    exposed_ns = replica.time.exposed_ns * needed // replica.num_steps
    if exposed_ns * _MIN_SHARE < step_ns:
        return None
    return Finding(
        slug="exposed-communication",
        severity="info",
        title=f"Backward waits for gradients to be reduced {100 * exposed_ns / step_ns:.0f} % of each step",
        evidence={
            "exposed_ns": replica.time.exposed_ns,
            "communication_ns": replica.time.communication_ns,
            "start_ns": replica.time.start_ns,
            "backward_ns": replica.time.backward_ns,
            "num_timed": replica.time.num_timed,
            "num_buckets": len(replica.bucket_bytes) or None,
            "step_ns": step_ns,
        },
        change="Try other sizes of buckets with bucket_cap_mb: smaller ones start earlier in backward, larger ones "
        "cost less for each byte. Waiting for slower ranks counts as communication too: compare the ranks.",
        cost="None in memory: buckets hold the gradients once, whatever their number.",
        saves_bytes=None,
        saves_ns=exposed_ns,
        new_peak_bytes=None,
        rank=rank.rank,
        where=None,
    )
