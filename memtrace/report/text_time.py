"""Where the time of the steps goes, in a terminal."""

from __future__ import annotations

from collections.abc import Sequence

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
    has_communication = bool(time.whole.communication_ns)
    communication = ("communication", "hidden") if has_communication else ()
    table = calm_table("step", "window", "compute", *communication, "copies", "idle", "idle share", wide="")
    shown, hidden = _shown(time.steps)
    for at, split in enumerate([*shown, time.whole]):
        if hidden and at == _MAX_STEPS // 2:
            table.add_row("…", *[""] * (len(table.columns) - 2), Text(f"{hidden} more steps", style="dim"))
        table.add_row(*_cells(split, has_communication=has_communication))
    return table


def _shown(steps: Sequence[TimeSplit]) -> tuple[Sequence[TimeSplit], int]:
    """Return the first and the last of many steps, and how many lie between them."""
    if len(steps) <= _MAX_STEPS:
        return steps, 0
    half = _MAX_STEPS // 2
    return [*steps[:half], *steps[-half:]], len(steps) - _MAX_STEPS


def _cells(split: TimeSplit, *, has_communication: bool) -> list[str | Text]:
    communication = [format_ns(split.communication_ns), _share(split.hidden_share)] if has_communication else []
    stalls = [
        f"{format_ns(value)} of it {why}"
        for value, why in ((split.data_stall_ns, "for data"), (split.allocator_stall_ns, "for memory"))
        if value
    ]
    return [
        "whole" if split.step is None else str(split.step),
        format_ns(split.window_ns),
        format_ns(split.compute_ns),
        *communication,
        format_ns(split.copy_ns),
        format_ns(split.idle_ns),
        _share(split.idle_share),
        Text(", ".join(stalls), style="dim"),
    ]


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
    if time.num_devices > 1:
        remarks.append(f"{time.num_devices} devices together: idle is when none of them runs anything.")
    return remarks


def _collective(one: CollectiveTime) -> str:
    exposed = f"{format_ns(one.exposed_ns)} of it while nothing is computed"
    return f"{clean(one.name)}: {one.num_kernels} kernels, {format_ns(one.time_ns)}, {exposed}."
