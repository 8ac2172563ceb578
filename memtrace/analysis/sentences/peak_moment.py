"""When and where a peak was, and, of one in evaluation, how large its batch was and what training needs."""

from __future__ import annotations

from memtrace.analysis.results.report import RankReport
from memtrace.analysis.sentences.words import when_and_where
from memtrace.schema.names import Phase
from memtrace.units import format_bytes


def when_of_peak(rank: RankReport) -> str:
    """Return a clause about the peak of a rank, beginning with a space; empty where nothing is known."""
    peak = rank.peak
    return when_and_where(peak.step, peak.phase, peak.module) + _beside_training(rank)


def _beside_training(rank: RankReport) -> str:
    found = rank.evaluation
    if found is None or rank.peak.phase != Phase.EVALUATION.value:
        return ""
    parts = [f"batch {found.batch:,}"] if found.batch is not None else []
    if (training := found.training_peak) is not None:
        num_bytes = training.requested_bytes if training.allocated_bytes is None else training.allocated_bytes
        parts.append(f"training peaks at {format_bytes(num_bytes)}")
    return f" ({'; '.join(parts)})" if parts else ""
