"""What evaluation needs beside training: the peak of each.

In: `DeviceHistory`. Out: `EvaluationResult`, `None` where no evaluation was recorded.
"""

from __future__ import annotations

import numpy as np

from memtrace.analysis.device.device_history import DeviceHistory
from memtrace.analysis.device.peak import peak_between
from memtrace.analysis.results.report import EvaluationResult, Peak
from memtrace.analysis.time.batches import batch_before
from memtrace.store.columns import IntArray


def evaluation_result(history: DeviceHistory) -> EvaluationResult | None:
    """Return the peaks within and outside evaluation."""
    stretches = history.evaluations
    if not history.has_history or not history.moments.has_times:
        return None
    within = [(first, last) for first, last in _moments(history, stretches) if last > first]
    if not within:
        return None
    peak = _largest(history, within)
    batch = None if peak.time_ns is None else batch_before(history.rank, peak.time_ns)
    training = _outside(history, within)
    return EvaluationResult(
        peak=peak,
        batch=None if batch is None else batch.samples,
        num_stretches=len(within),
        training_peak=_largest(history, training) if training else None,
    )


def _moments(history: DeviceHistory, stretches: IntArray) -> list[tuple[int, int]]:
    """Return first and last moment of each stretch; what it starts from is the end of what was before."""
    moments = history.moments
    firsts, lasts = (np.searchsorted(moments.time_ns, times, side="left") for times in stretches.T)
    return [(int(first), int(last) - 1) for first, last in zip(firsts, lasts, strict=True)]


def _outside(history: DeviceHistory, within: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return the stretches of moments between, from the start of training on."""
    start_ns = history.rank.table("steps")["end_ns"][:1]
    first = int(history.moments.at_times(start_ns)[0]) if len(start_ns) and start_ns[0] >= 0 else 0
    found = []
    for begins, ends in within:
        if begins - 1 > first:
            found.append((first, begins - 1))
        first = max(first, ends + 1)
    if first <= history.last_moment:
        found.append((first, history.last_moment))
    return found


def _largest(history: DeviceHistory, stretches: list[tuple[int, int]]) -> Peak:
    levels = history.levels
    level = levels.requested if levels.allocated is None else levels.allocated
    first, last = max(stretches, key=lambda one: (int(level[one[0] : one[1] + 1].max()), -one[0]))
    return peak_between(history, first, last)
