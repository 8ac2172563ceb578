"""Where the time of the steps goes, in a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from memtrace.analysis.results.time import TimeResult, TimeSplit
from memtrace.printable import clean
from memtrace.report.drawing.time_rows import collective_text, remarks, time_columns, windows_text
from memtrace.report.terminal.cells import calm_table

_MAX_STEPS = 8
_MAX_COLLECTIVES = 3


def gpu_time(time: TimeResult) -> Group:
    """Return a row a step and one for the whole profile, and what their windows are."""
    parts: list[RenderableType] = [_table(time), "", Text(windows_text(time), style="dim")]
    parts += [Text(remark, style="dim") for remark in remarks(time)]
    parts += [Text(clean(collective_text(one)), style="dim") for one in time.collectives[:_MAX_COLLECTIVES]]
    return Group(*parts)


def _table(time: TimeResult) -> Table:
    columns = time_columns(time)
    table = calm_table("step", *(name for name, _ in columns))
    shown, hidden = _shown(time.steps)
    for at, split in enumerate([*shown, time.whole]):
        if hidden and at == _MAX_STEPS // 2:
            table.add_row("…", Text(f"{hidden} more", style="dim"))
        table.add_row("whole" if split.step is None else str(split.step), *(cell(split) for _, cell in columns))
    return table


def _shown(steps: Sequence[TimeSplit]) -> tuple[Sequence[TimeSplit], int]:
    """Return the first and the last of many steps, and how many lie between them."""
    if len(steps) <= _MAX_STEPS:
        return steps, 0
    half = _MAX_STEPS // 2
    return [*steps[:half], *steps[-half:]], len(steps) - _MAX_STEPS
