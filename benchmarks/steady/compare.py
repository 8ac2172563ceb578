"""A prediction beside what was recorded.

In: a rank with several steps, a cut. Out: `Comparison`.
"""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.steady.cut import Cut, cut_rank, time_of
from memtrace.analysis.attribution.inferred_marks import with_inferred_marks
from memtrace.analysis.device.device_history import build_history, device_names
from memtrace.analysis.device.steps import step_spans
from memtrace.analysis.first_step.two_peaks import steady_state_peak
from memtrace.analysis.results.report import Peak, PredictedPeak
from memtrace.store.trace import RankTrace


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """A peak that was recorded, and what was predicted from less."""

    recorded: Peak
    predicted: PredictedPeak

    @property
    def error(self) -> float:
        """Predicted less recorded bytes, as a share of the recorded ones."""
        recorded = self.recorded.requested_bytes or 0
        return (self.predicted.requested_bytes or 0) / recorded - 1 if recorded else 0.0

    @property
    def is_in_range(self) -> bool:
        """Whether the range of the prediction holds what was recorded."""
        return self.predicted.low_bytes <= (self.recorded.requested_bytes or 0) <= self.predicted.high_bytes


def compare(rank: RankTrace, cut: Cut) -> Comparison:
    """Return prediction and recording of one rank, of its first device.

    Raises:
        ValueError: the rank has no later step to compare with, or nothing was predicted from what the cut leaves.
    """
    # What has no marks gets them from what is left of it alone.
    whole = with_inferred_marks(rank)
    part = with_inferred_marks(cut_rank(rank, time_of(whole, cut)))
    device = device_names(whole)[0]
    recorded, predicted = _steady(whole, device), _steady(part, device)
    if recorded is None or recorded.predicted or not isinstance(predicted, PredictedPeak):
        raise ValueError("nothing to compare")
    return Comparison(recorded=recorded, predicted=predicted)


def _steady(rank: RankTrace, device: str) -> Peak | None:
    history = build_history(rank, device, owns_marks=device != "cpu")
    return steady_state_peak(history, step_spans(history), capacity_bytes=None)
