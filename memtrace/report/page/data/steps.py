"""Steps as a page shows them: one row a recorded step, and one for each stretch of steps that were not recorded."""

from __future__ import annotations

from collections.abc import Sequence

from memtrace.analysis.results.report import RankReport, StepResult
from memtrace.report.drawing.palette import PHASES, phase_ink
from memtrace.report.drawing.step_time_rows import step_lengths
from memtrace.report.page.data.values import NOT_RECORDED, View, main_bytes, share_of
from memtrace.units import format_bytes, format_ns


def steps_view(rank: RankReport) -> View:
    """Return one row a recorded step, and one for each stretch of steps that were not recorded."""
    steps, lengths = rank.steps, step_lengths(rank)
    phases = [name for name in PHASES if any(phase.phase == name for step in steps for phase in step.phases)]
    largest = max((_step_peak(step) or 0 for step in steps), default=0)
    rows: list[View] = []
    unrecorded: list[StepResult] = []
    for step in steps:
        if not step.recorded:
            unrecorded.append(step)
            continue
        rows += _condensed(unrecorded)
        unrecorded = []
        rows.append(_step_row(step, phases, largest) | {"duration": _duration(lengths.get(step.step))})
    kind = "allocated" if any(step.peak_allocated_bytes is not None for step in steps) else "requested"
    labels = [phase_ink(name).label for name in phases]
    return {"kind": kind, "phases": labels, "rows": rows + _condensed(unrecorded), **_step_columns(steps)}


def _step_columns(steps: Sequence[StepResult]) -> View:
    """Return which optional columns have anything to show."""
    return {
        "has_reserved": any(step.max_reserved_bytes is not None for step in steps),
        "has_mallocs": any(step.num_device_mallocs is not None for step in steps),
        "has_rss": any(step.host_rss_bytes is not None for step in steps),
    }


def _step_peak(step: StepResult) -> int | None:
    return step.peak_requested_bytes if step.peak_allocated_bytes is None else step.peak_allocated_bytes


def _step_row(step: StepResult, phases: Sequence[str], largest: int) -> View:
    peak = _step_peak(step)
    return {
        "recorded": True,
        "label": "before step 1" if step.step == 0 else str(step.step),
        "skipped": step.skipped,
        "microbatches": step.num_microbatches,
        "ended": step.end_ns is not None,
        "peak": format_bytes(peak),
        "share": share_of(peak, largest),
        "end": format_bytes(None if step.end is None else main_bytes(step.end)),
        "reserved": format_bytes(step.max_reserved_bytes),
        "mallocs": NOT_RECORDED if step.num_device_mallocs is None else f"{step.num_device_mallocs:,}",
        "rss": format_bytes(step.host_rss_bytes),
        "phase_peaks": [_phase_peak(step, phase) for phase in phases],
    }


def _duration(length_ns: int | None) -> str:
    return "did not end" if length_ns is None else format_ns(length_ns)


def _phase_peak(step: StepResult, name: str) -> str:
    """Return the largest peak of a phase over the microbatches of a step; "–" where the step has no such phase."""
    phases = [phase for phase in step.phases if phase.phase == name]
    peaks = [
        phase.peak_requested_bytes if phase.peak_allocated_bytes is None else phase.peak_allocated_bytes
        for phase in phases
    ]
    known = [peak for peak in peaks if peak is not None]
    return format_bytes(max(known, default=None)) if phases else "–"


def _condensed(steps: Sequence[StepResult]) -> list[View]:
    if not steps:
        return []
    first, last = steps[0].step, steps[-1].step
    label = str(first) if first == last else f"{first} – {last}"
    skipped = sum(step.skipped for step in steps)
    text = "not recorded: outside the recording windows" + (f"; {skipped:,} skipped by the scaler" if skipped else "")
    return [{"recorded": False, "label": label, "text": text}]
