"""What is known of steps that were not recorded: their high-water marks, beside the peak of those that were.

In: the steps of a report. Out: `Unrecorded`.
"""

from __future__ import annotations

from collections.abc import Sequence

from memtrace.analysis.results.report import StepResult, Unrecorded

_MUCH_HIGHER = 1.05


def unrecorded_steps(steps: Sequence[StepResult]) -> Unrecorded | None:
    """Return what is known of the steps that were not recorded; `None` where all were."""
    missing = [step for step in steps if not step.recorded and step.end_ns is not None]
    if not missing:
        return None
    peak = max((_peak(step) or 0 for step in steps if step.recorded), default=0)
    marks = [(step.high_water_bytes, step.step) for step in missing if step.high_water_bytes is not None]
    highest = max(marks, key=lambda one: (one[0], -one[1]), default=None)
    is_higher = highest is not None and highest[0] > peak
    return Unrecorded(
        num_steps=len(missing),
        num_marked=len(marks),
        higher_step=highest[1] if highest is not None and is_higher else None,
        higher_bytes=highest[0] if highest is not None and is_higher else None,
        host_step=None if marks else _host_step(steps),
    )


def _peak(step: StepResult) -> int | None:
    return step.peak_requested_bytes if step.peak_allocated_bytes is None else step.peak_allocated_bytes


def _host_step(steps: Sequence[StepResult]) -> int | None:
    """Return the step in which the host's memory was highest, where that was none of those recorded, by a good part."""
    rose = [(step.peak_host_rss_bytes, step) for step in steps if step.peak_host_rss_bytes is not None]
    if not rose:
        return None
    highest, step = max(rose, key=lambda one: one[0])
    recorded = max((rss for rss, one in rose if one.recorded), default=0)
    return step.step if not step.recorded and highest > _MUCH_HIGHER * recorded else None
