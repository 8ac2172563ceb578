"""Steps by the program's own clock, and throughput, as a part of the JSON document."""

from __future__ import annotations

from typing import Any

from memtrace.analysis.results.step_times import StepTime, StepTimes
from memtrace.report.json.plain import plain


def step_times_document(times: StepTimes) -> dict[str, Any]:
    """Return the value of `step_times` of a rank."""
    return {
        "steps": [_step(one) for one in times.steps],
        "throughput": plain(times.throughput),
    }


def _step(step: StepTime) -> dict[str, Any]:
    return {
        "step": step.step,
        "start_ns": step.start_ns,
        "end_ns": step.end_ns,
        "step_ns": step.step_ns,
        "recording_ns": step.recording_ns,
        "phases_ns": plain(step.phases_ns),
        "tokens": step.tokens,
        "samples": step.samples,
    }
