"""Steps by the program's own clock, and throughput, in a terminal."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from memtrace.analysis.results.step_times import StepTimes
from memtrace.printable import clean
from memtrace.report.drawing.step_time_rows import step_time_columns, throughput_sentences
from memtrace.report.terminal.cells import calm_table

_MAX_STEPS = 8


def step_times(times: StepTimes) -> Group:
    """Return a row a step, and how fast that is."""
    parts: list[RenderableType] = [_table(times), ""]
    parts += [Text(clean(sentence), style="dim") for sentence in throughput_sentences(times)]
    return Group(*parts)


def _table(times: StepTimes) -> Table:
    columns = step_time_columns(times.steps)
    table = calm_table("step", *(name for name, _ in columns))
    half = _MAX_STEPS // 2
    num_hidden = max(len(times.steps) - _MAX_STEPS, 0)
    shown = [*times.steps[:half], *times.steps[-half:]] if num_hidden else times.steps
    for at, step in enumerate(shown):
        if num_hidden and at == half:
            table.add_row("…", Text(f"{num_hidden} more", style="dim"))
        table.add_row(str(step.step), *(cell(step) for _, cell in columns))
    return table
