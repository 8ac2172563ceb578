"""Modules, stacks, steps and ranks in a terminal: one row each, the largest or the first and last of many."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

from memtrace.analysis.results.report import RankReport, StackRow, StepResult
from memtrace.printable import clean
from memtrace.report.drawing.kinds import kinds
from memtrace.report.drawing.step_time_rows import step_lengths
from memtrace.report.terminal.cells import (
    DASH,
    calm_table,
    filled_table,
    size,
)
from memtrace.report.terminal.memory import peak_bytes
from memtrace.schema.frames import own_frames, short_place
from memtrace.schema.names import Phase
from memtrace.units import format_ns

MAX_MODULES = 8
MAX_STACKS = 5
MAX_STEPS = 12
_FRAMES_OF_STACK = 3


def modules(rank: RankReport) -> Table:
    """Return the modules with most bytes at the peak."""
    table = calm_table("bytes", "allocations", wide="module")
    table.columns[0].justify = "right"
    for row in rank.top_modules[:MAX_MODULES]:
        name = Text(DASH + " outside any module" if row.module is None else clean(row.module))
        name.append(f"  {clean(kinds(row.by_category))}", style="dim")
        table.add_row(size(row.num_bytes), str(row.num_allocations), name)
    if len(rank.top_modules) > MAX_MODULES:
        table.add_row("", "", Text(f"and {len(rank.top_modules) - MAX_MODULES} more", style="dim"))
    return table


def stacks(rows: Sequence[StackRow]) -> Table:
    """Return the stacks with most bytes at the peak."""
    table = calm_table("bytes", "allocations", wide="where")
    table.columns[0].justify = "right"
    for row in rows[:MAX_STACKS]:
        lines = _frames(row.frames) or ["no stack recorded"]
        where = Text(lines[0]).append(f"  {clean(kinds(row.by_category))}", style="dim")
        for line in lines[1:]:
            where.append(f"\n  {line}", style="dim")
        table.add_row(size(row.num_bytes), str(row.num_allocations), where)
    return table


def _frames(frames: Sequence[str]) -> list[str]:
    """Return the innermost few frames of the user's own code; of any code where there is none."""
    return [clean(short_place(frame)) for frame in own_frames(frames)[:_FRAMES_OF_STACK]]


def steps(rank: RankReport) -> Table:
    """Return a row a step; of many steps the first and the last, and stretches that were not recorded as one row."""
    groups, lengths = _groups(rank.steps), step_lengths(rank)
    found: list[Sequence[str | Text]] = []
    hidden = len(groups) - MAX_STEPS
    for at, group in enumerate(groups):
        if hidden > 1 and MAX_STEPS // 2 <= at < MAX_STEPS // 2 + hidden:
            if at == MAX_STEPS // 2:
                found.append(("…", "", "", "", "", "", Text(f"{hidden} more rows", style="dim")))
            continue
        if _is_missing(group[0]):
            label = f"{group[0].step}" if len(group) == 1 else f"{group[0].step} to {group[-1].step}"
            found.append((label, *[DASH] * 5, Text("not recorded", style="dim")))
        else:
            found.append(_step_cells(group[0], lengths.get(group[0].step)))
    return filled_table(("step", "peak", "reserved", "at its end", "mallocs", "time"), found, wide="")


def _groups(rows: Sequence[StepResult]) -> list[list[StepResult]]:
    """Return the steps, those in a row that were not recorded as one group."""
    groups: list[list[StepResult]] = []
    for step in rows:
        if groups and _is_missing(step) and _is_missing(groups[-1][-1]):
            groups[-1].append(step)
        else:
            groups.append([step])
    return groups


def _is_missing(step: StepResult) -> bool:
    """Return whether nothing of a step was recorded but that it was."""
    return not step.recorded and step.peak_requested_bytes is None


def _step_cells(step: StepResult, length_ns: int | None) -> tuple[str | Text, ...]:
    end = step.end
    at_end = None if end is None else end.requested_bytes if end.allocated_bytes is None else end.allocated_bytes
    peak = step.peak_requested_bytes if step.peak_allocated_bytes is None else step.peak_allocated_bytes
    evaluation = _evaluation_peak(step)
    remarks = [
        "skipped by the gradient scaler" if step.skipped else "",
        "did not end" if step.end_ns is None else "",
        f"{step.num_microbatches} microbatches" if step.num_microbatches > 1 else "",
        "" if evaluation is None else f"evaluation peaks at {size(evaluation)}",
    ]
    return (
        str(step.step),
        size(peak),
        size(step.max_reserved_bytes),
        size(at_end),
        DASH if step.num_device_mallocs is None else str(step.num_device_mallocs),
        DASH if length_ns is None else format_ns(length_ns),
        Text(", ".join(remark for remark in remarks if remark), style="dim"),
    )


def _evaluation_peak(step: StepResult) -> int | None:
    """Return the largest peak of the evaluations that lie in the time of a step."""
    peaks = [
        one.peak_requested_bytes if one.peak_allocated_bytes is None else one.peak_allocated_bytes
        for one in step.phases
        if one.phase == Phase.EVALUATION.value
    ]
    return max((peak for peak in peaks if peak is not None), default=None)


def ranks(rows: Sequence[RankReport]) -> Table:
    """Return a row a rank or device."""
    table = calm_table("", "peak", "first step", "steady", "reserved", "device", wide="")
    for rank in rows:
        state = "out of memory" if rank.oom is not None else "" if rank.complete else "incomplete"
        table.add_row(
            clean(rank.device if rank.rank is None else f"rank {rank.rank}, {rank.device}"),
            peak_bytes(rank.peak),
            peak_bytes(rank.first_step_peak),
            peak_bytes(rank.steady_state_peak),
            size(rank.max_reserved_bytes),
            size(rank.capacity_bytes),
            state,
        )
    return table
