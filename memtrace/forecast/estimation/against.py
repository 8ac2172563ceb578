"""An estimate beside a recording of the same training: by category, with the error of each.

In: `Estimate`, and the report of one rank and device of the recording. Out: `Comparison`. Weights, activations and the
total are compared at the peak; gradients and states as they are at the end of a step, where all of them are there.
"""

from __future__ import annotations

from collections.abc import Mapping

from memtrace.analysis.results.report import Peak, RankReport
from memtrace.forecast.results import ComparedCategory, Comparison, Estimate
from memtrace.schema.names import Category

_COMPARED = (
    Category.PARAMETER.value,
    Category.GRADIENT.value,
    Category.OPTIMIZER_STATE.value,
    Category.ACTIVATION.value,
    Category.TEMPORARY.value,
)


def compare(estimate: Estimate, recorded: RankReport) -> Comparison:
    """Return the estimate beside the steady-state peak of a recording, or beside its peak where no step repeats."""
    steady = recorded.steady_state_peak
    peak = steady or recorded.peak
    ends = [step.end.by_category for step in recorded.steps if step.end is not None]
    truth = dict(peak.by_category)
    for name in (Category.GRADIENT.value, Category.OPTIMIZER_STATE.value):
        if ends:
            truth[name] = max(end.get(name, 0) for end in ends)
    figures = dict(estimate.peak.by_category)
    figures |= {
        Category.GRADIENT.value: estimate.gradient_bytes,
        Category.OPTIMIZER_STATE.value: estimate.state_bytes,
    }
    rows = [_row(name, figures.get(name, 0), truth.get(name)) for name in _COMPARED]
    inputs, total = truth.get(Category.INPUT.value, 0), _total(peak)
    workspace = figures.get(Category.WORKSPACE.value, 0)
    # Of a GPU's libraries what torch allocates for them is recorded; an estimate counts it with the context.
    recorded_workspace = truth.get(Category.WORKSPACE.value, 0)
    tensors = estimate.peak.peak_bytes - workspace
    rows.append(_row("total", tensors, None if total is None else total - inputs - recorded_workspace))
    return Comparison(
        title=f"{estimate.model} beside {recorded.device}{_of_rank(recorded)}",
        step=peak.step,
        rows=tuple(rows),
        notes=tuple(_notes(estimate, recorded, steady, truth, inputs=inputs, workspace=workspace)),
    )


def _of_rank(recorded: RankReport) -> str:
    return "" if recorded.rank is None else f" of rank {recorded.rank}"


def _total(peak: Peak) -> int | None:
    return peak.requested_bytes if peak.allocated_bytes is None else peak.allocated_bytes


def _row(name: str, estimated: int, recorded: int | None) -> ComparedCategory:
    error = 100 * (estimated - recorded) / recorded if recorded else None
    return ComparedCategory(name=name, estimated_bytes=estimated, recorded_bytes=recorded, error_pct=error)


def _notes(
    estimate: Estimate,
    recorded: RankReport,
    steady: Peak | None,
    truth: Mapping[str, int],
    *,
    inputs: int,
    workspace: int,
) -> list[str]:
    notes = []
    if steady is None:
        notes.append("No step after the first was recorded whole: the estimate is of the steady state all the same.")
    if inputs:
        notes.append(f"The total leaves out {inputs:,} bytes that the program holds as input.")
    if workspace:
        notes.append("The total leaves out the context, workspaces of libraries and communicators.")
    unknown, whole = truth.get(Category.UNKNOWN.value, 0), sum(truth.values())
    if whole and unknown > whole // 100:
        notes.append(f"{100 * unknown / whole:.0f} % of the recorded peak are unattributed: categories may be too low.")
    if recorded.device == "cpu" and estimate.settings["backend"] != "cpu":
        notes.append("The recording is of the CPU: compare it with --backend cpu.")
    return notes
