"""Where the time of the steps goes, in a terminal."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from memtrace.analysis.time_results import CollectiveTime, TimeResult, TimeSplit
from memtrace.report.text_cells import DASH, calm_table, clean, percent
from memtrace.units import format_ns

_MAX_STEPS = 8
_MAX_COLLECTIVES = 3


def gpu_time(time: TimeResult) -> Group:
    """Return a row a step and one for the whole profile, and what their windows are."""
    parts: list[RenderableType] = [_table(time), "", Text(_windows(time), style="dim")]
    parts += [Text(remark, style="dim") for remark in _remarks(time)]
    parts += [Text(_collective(one), style="dim") for one in time.collectives[:_MAX_COLLECTIVES]]
    return Group(*parts)


def _table(time: TimeResult) -> Table:
    columns = _columns(time)
    table = calm_table("step", *(name for name, _ in columns))
    shown, hidden = _shown(time.steps)
    for at, split in enumerate([*shown, time.whole]):
        if hidden and at == _MAX_STEPS // 2:
            table.add_row("…", Text(f"{hidden} more", style="dim"))
        table.add_row("whole" if split.step is None else str(split.step), *(cell(split) for _, cell in columns))
    return table


def _columns(time: TimeResult) -> list[tuple[str, Callable[[TimeSplit], str]]]:
    """Return the columns with what stands in them; those of which the profile holds nothing are left out."""
    columns: list[tuple[str, Callable[[TimeSplit], str]]] = [
        ("window", lambda split: format_ns(split.window_ns)),
        ("compute", lambda split: format_ns(split.compute_ns)),
    ]
    if time.collectives:
        columns.append(("communication", lambda split: format_ns(split.communication_ns)))
        columns.append(("hidden", lambda split: _share(split.hidden_share)))
    columns.append(("copies", lambda split: format_ns(split.copy_ns)))
    columns.append(("idle", lambda split: format_ns(split.idle_ns)))
    columns.append(("share", lambda split: _share(split.idle_share)))
    if any(split.data_stall_ns for split in (*time.steps, time.whole)):
        columns.append(("for data", lambda split: format_ns(split.data_stall_ns)))
    if any(split.allocator_stall_ns for split in (*time.steps, time.whole)):
        columns.append(("for memory", lambda split: format_ns(split.allocator_stall_ns)))
    return columns


def _shown(steps: Sequence[TimeSplit]) -> tuple[Sequence[TimeSplit], int]:
    """Return the first and the last of many steps, and how many lie between them."""
    if len(steps) <= _MAX_STEPS:
        return steps, 0
    half = _MAX_STEPS // 2
    return [*steps[:half], *steps[-half:]], len(steps) - _MAX_STEPS


def _share(share: float | None) -> str:
    return DASH if share is None else percent(share)


def _windows(time: TimeResult) -> str:
    """Return what the rows are about."""
    whole = "Whole: from the first activity on the GPU to the end of the last."
    if not time.steps:
        return whole
    marked = "as ProfilerStep marks it" if time.window == "ProfilerStep" else "as recorded, to the end of its optimizer"
    late = any(step.outside_ns for step in time.steps)
    beyond = " What they run after its end is theirs, so that parts can add up to more than the window." if late else ""
    return f"Step: its time on the CPU, {marked}; its figures are of what it launched.{beyond} {whole}"


def _remarks(time: TimeResult) -> list[str]:
    """Return what no row of a step holds."""
    remarks = []
    if time.unfinished_steps:
        remarks.append(f"Without an end, and so without a row: step {', '.join(map(str, time.unfinished_steps))}.")
    if time.num_unlinked and time.steps:
        remarks.append(f"{time.num_unlinked} activities without a recorded launch are in no step.")
    if time.num_outside_steps:
        remarks.append(f"{time.num_outside_steps} activities were launched outside all steps.")
    if time.whole.unseen_ns:
        remarks.append(
            f"For {format_ns(time.whole.unseen_ns)} of the whole the profiler did not run: that is not idle."
        )
    if time.num_devices > 1:
        remarks.append(f"{time.num_devices} devices together: idle is when none of them runs anything.")
    return remarks


def _collective(one: CollectiveTime) -> str:
    exposed = f"{format_ns(one.exposed_ns)} of it while nothing is computed"
    return f"{clean(one.name)}: {one.num_kernels} kernels, {format_ns(one.time_ns)}, {exposed}."
