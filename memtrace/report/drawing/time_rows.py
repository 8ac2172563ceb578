"""The time of a rank in rows and sentences, for a terminal and for a page."""

from __future__ import annotations

from collections.abc import Callable

from memtrace.analysis.results.time import CollectiveTime, TimeResult, TimeSplit
from memtrace.units import format_ns


def time_columns(time: TimeResult) -> list[tuple[str, Callable[[TimeSplit], str]]]:
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


def _share(share: float | None) -> str:
    if share is None:
        return "-"
    return "<0.1 %" if 0 < share < 0.001 else f"{100 * share:.1f} %"


def windows_text(time: TimeResult) -> str:
    """Return what the rows are about."""
    whole = "Whole: from the first activity on the GPU to the end of the last."
    if not time.steps:
        return whole
    marked = "as ProfilerStep marks it" if time.window == "ProfilerStep" else "as recorded, to the end of its optimizer"
    late = any(step.outside_ns for step in time.steps)
    beyond = " What they run after its end is theirs, so that parts can add up to more than the window." if late else ""
    return f"Step: its time on the CPU, {marked}; its figures are of what it launched.{beyond} {whole}"


def remarks(time: TimeResult) -> list[str]:
    """Return what no row of a step holds."""
    found = []
    if time.unfinished_steps:
        found.append(f"Without an end, and so without a row: step {', '.join(map(str, time.unfinished_steps))}.")
    if time.num_unlinked and time.steps:
        found.append(f"{time.num_unlinked} activities without a recorded launch are in no step.")
    if time.num_outside_steps:
        found.append(f"{time.num_outside_steps} activities were launched outside all steps.")
    if time.whole.unseen_ns:
        found.append(f"For {format_ns(time.whole.unseen_ns)} of the whole the profiler did not run: that is not idle.")
    if time.num_devices > 1:
        found.append(f"{time.num_devices} devices together: idle is when none of them runs anything.")
    return found


def collective_text(one: CollectiveTime) -> str:
    """Return one kind of communication as a sentence."""
    exposed = f"{format_ns(one.exposed_ns)} of it while nothing is computed"
    return f"{one.name}: {one.num_kernels} kernels, {format_ns(one.time_ns)}, {exposed}."
