"""Steps by the program's own clock in rows and sentences, for a terminal and for a page."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from memtrace.analysis.results.report import RankReport
from memtrace.analysis.results.step_times import ModelFlops, StepTime, StepTimes, Throughput
from memtrace.schema.names import Phase
from memtrace.units import format_ns

_ORDER = (
    *(Phase.EVALUATION, Phase.DATA, Phase.FORWARD, Phase.RECOMPUTE, Phase.BACKWARD, Phase.OPTIMIZER),
    Phase.OTHER,
)

StepColumn = tuple[str, Callable[[StepTime], str]]
"""Heading of a column, and what stands in it."""


def step_time_columns(steps: Sequence[StepTime]) -> list[StepColumn]:
    """Return the columns of some steps; phases that none of them has are left out."""
    columns: list[StepColumn] = [("time", lambda step: format_ns(step.step_ns))]
    for phase in _ORDER:
        if any((step.phases_ns or {}).get(phase.value) for step in steps):
            columns.append((phase.value, _phase_cell(phase.value)))
    if any(step.recording_ns for step in steps):
        columns.append(("memtrace", lambda step: format_ns(step.recording_ns)))
    if any(step.tokens for step in steps):
        columns.append(("tokens", lambda step: _count(step.tokens)))
    elif any(step.samples for step in steps):
        columns.append(("samples", lambda step: _count(step.samples)))
    return columns


def step_lengths(rank: RankReport) -> dict[int, int]:
    """Return the time of each step that ended, in every table: without what memtrace took, where that is known."""
    found = {
        step.step: step.end_ns - step.start_ns
        for step in rank.steps
        if step.end_ns is not None and step.start_ns is not None
    }
    return found | {one.step: one.step_ns for one in (rank.step_times.steps if rank.step_times is not None else ())}


def _phase_cell(name: str) -> Callable[[StepTime], str]:
    return lambda step: "-" if step.phases_ns is None else format_ns(step.phases_ns.get(name, 0))


def _count(number: int | None) -> str:
    return "-" if number is None else f"{number:,}"


def throughput_sentences(times: StepTimes) -> list[str]:
    """Return how fast the rank trains, what that rests on, and what the figures leave out."""
    found = ["By the program's own clock, on the CPU, without what memtrace took."]
    throughput = times.throughput
    if throughput is None:
        return found
    found.insert(0, _speed(throughput))
    if throughput.flops is not None:
        found += _utilization(throughput.flops)
    return found


def _speed(throughput: Throughput) -> str:
    what = "slowed down by being recorded" if throughput.of_recorded else "recorded without stacks or not at all"
    number = f"{throughput.num_steps} steps" if throughput.num_steps > 1 else "1 step"
    length = f"{format_ns(throughput.step_ns)}, the median of {number} {what}."
    if throughput.tokens_per_second is not None:
        speed = f"{throughput.tokens_per_second:,.0f} tokens a second on this rank"
        return f"{speed}: {throughput.tokens_per_step:,} a step, in {length}"
    if throughput.samples_per_second is not None:
        speed = f"{throughput.samples_per_second:,.1f} samples a second on this rank"
        return f"{speed}: {throughput.samples_per_step:,} a step, in {length}"
    return f"A step takes {length}"


def _utilization(flops: ModelFlops) -> list[str]:
    tera = 1e12
    share = f"Model FLOPs utilisation {100 * flops.utilization:.1f} %, an estimate"
    sums = f"{flops.per_step / tera:,.3g} TFLOP a step, {flops.peak_flops / tera:,.4g} TFLOP/s of {flops.device}"
    return [f"{share}: {sums}.", *flops.assumptions]
