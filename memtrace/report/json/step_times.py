"""Steps by the program's own clock, and throughput, as a part of the JSON document."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from memtrace.analysis.results.step_times import StepTime, StepTimes, Throughput


def step_times_document(times: StepTimes) -> dict[str, Any]:
    """Return the value of `step_times` of a rank."""
    return {
        "steps": [_step(one) for one in times.steps],
        "throughput": None if times.throughput is None else _throughput(times.throughput),
    }


def _step(step: StepTime) -> dict[str, Any]:
    return {
        "step": step.step,
        "start_ns": step.start_ns,
        "end_ns": step.end_ns,
        "step_ns": step.step_ns,
        "recording_ns": step.recording_ns,
        "phases_ns": None if step.phases_ns is None else dict(step.phases_ns),
        "tokens": step.tokens,
        "samples": step.samples,
    }


def _throughput(throughput: Throughput) -> dict[str, Any]:
    return {
        "step_ns": throughput.step_ns,
        "num_steps": throughput.num_steps,
        "of_recorded": throughput.of_recorded,
        "tokens_per_step": throughput.tokens_per_step,
        "samples_per_step": throughput.samples_per_step,
        "tokens_per_second": throughput.tokens_per_second,
        "samples_per_second": throughput.samples_per_second,
        "flops": None if throughput.flops is None else asdict(throughput.flops),
    }
