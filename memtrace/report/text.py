"""The report in a terminal: verdict first, then the peak, what it is made of, the steps, and what was not seen.

In: `Report`. Out: text, with colour only where the terminal has it. Every number is a field of a result. The only file
that imports rich. Names come out of files and may hold terminal escapes, so every one of them passes `clean`.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from io import StringIO
from typing import IO

from rich import box
from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from memtrace.analysis.results import (
    Finding,
    Note,
    Peak,
    PredictedPeak,
    RankReport,
    Report,
    StackRow,
    State,
    StepResult,
)
from memtrace.schema.frames import own_frames
from memtrace.schema.names import Category, Decision
from memtrace.units import format_bytes, format_ns

MAX_WIDTH = 100
MAX_MODULES = 8
MAX_STACKS = 5
MAX_STEPS = 12
_FRAMES_OF_STACK = 3
_BAR_WIDTH = 20
_NAME_WIDTH = 24
_EXACT = (Decision.OWNER.value, Decision.HOOK.value)
_DASH = "-"
_STYLES = {
    "parameter": "blue",
    "gradient": "red",
    "optimizer_state": "magenta",
    "activation": "green",
    "input": "cyan",
    "buffer": "cyan",
    "unknown": "bright_black",
}


def print_report(report: Report, *, file: IO[str] | None = None) -> None:
    """Print the report to a file, standard output if none is given, in the colours and width of a terminal."""
    target = file or sys.stdout
    # A terminal can be wider than a table reads well.
    console = Console(file=target, highlight=False, markup=False, emoji=False, legacy_windows=False)
    console.width = min(console.width, MAX_WIDTH) if console.is_terminal else MAX_WIDTH
    with console.capture() as captured:
        console.print(_report(report))
    text = "".join(f"{line.rstrip()}\n" for line in captured.get().splitlines())
    encoding = getattr(target, "encoding", None) or "utf-8"
    target.write(text.encode(encoding, "replace").decode(encoding))


def render_text(report: Report, *, width: int = MAX_WIDTH) -> str:
    """Return the report as plain text of a width, without colour."""
    console = Console(
        file=StringIO(),
        width=width,
        color_system=None,
        highlight=False,
        markup=False,
        emoji=False,
        legacy_windows=False,
    )
    with console.capture() as captured:
        console.print(_report(report))
    return "".join(f"{line.rstrip()}\n" for line in captured.get().splitlines())


def clean(text: str) -> str:
    """Return a name with everything replaced that could steer a terminal: controls, escapes, right-to-left marks.

    >>> clean("blocks\\x1b[2J.\\u202e0\\n")
    'blocks�[2J.�0�'
    """
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text)


def _report(report: Report) -> Group:
    """Return the whole report."""
    parts: list[RenderableType] = [
        Text(f"memtrace  {clean(report.title)}", style="dim"),
        "",
        Padding(Text(clean(report.verdict), style="bold"), (0, 2)),
    ]
    if report.findings:
        parts += _section("What to do", _findings(report.findings))
    if len(report.ranks) > 1:
        parts += _section("Ranks" if len({one.rank for one in report.ranks}) > 1 else "Devices", _ranks(report.ranks))
    for rank in _detailed(report):
        parts += _rank(rank, named=len(report.ranks) > 1)
    if report.warnings:
        parts += _section("Not read", _notes(report.warnings))
    return Group(*parts)


def _detailed(report: Report) -> Sequence[RankReport]:
    """Return the ranks to show in full: all of a few, else the one that the verdict is about."""
    if len(report.ranks) <= 2 or report.main_rank is None:
        return report.ranks[:2]
    return (report.ranks[report.main_rank],)


def _section(title: str, body: RenderableType) -> list[RenderableType]:
    return ["", Text(clean(title), style="bold cyan"), Padding(body, (0, 0, 0, 2))]


def _rank(rank: RankReport, *, named: bool) -> list[RenderableType]:
    """Return all sections of one rank."""
    parts: list[RenderableType] = []
    if named:
        parts += ["", Text(_rank_name(rank), style="bold underline")]
    if rank.oom is not None:
        parts += _section("Out of memory", _oom(rank))
    parts += _section("Memory", _figures(rank))
    if isinstance(rank.steady_state_peak, PredictedPeak):
        parts += _section("From step 2 on, predicted", _prediction(rank.steady_state_peak))
    if rank.peak.requested_bytes:
        parts += _section("At the peak", _categories(rank.peak))
    if rank.top_modules:
        parts += _section("Modules at the peak", _modules(rank))
    if any(row.frames for row in rank.top_stacks):
        parts += _section("Stacks at the peak", _stacks(rank.top_stacks))
    if rank.steps:
        parts += _section("Steps", _steps(rank.steps))
    if rank.first_step_effects:
        parts += _section("What makes step 1 different", _first_step(rank))
    if rank.warnings:
        parts += _section("Not seen", _notes(rank.warnings))
    return parts


def _rank_name(rank: RankReport) -> str:
    name = rank.device if rank.rank is None else f"rank {rank.rank}, {rank.device}"
    return clean(name if rank.complete else f"{name}, recording incomplete")


def _table(*columns: str, wide: str | None = None) -> Table:
    """Return a calm table: the first column is text, the others are numbers, `wide` is a last column of text."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, header_style="dim", border_style="dim")
    table.add_column(columns[0], no_wrap=True, overflow="ellipsis", max_width=_NAME_WIDTH)
    for name in columns[1:]:
        table.add_column(name, justify="right", no_wrap=True)
    if wide is not None:
        table.add_column(wide, overflow="fold")
    return table


def _bytes(num_bytes: int | None) -> str:
    return _DASH if num_bytes is None else format_bytes(num_bytes)


def _ranks(ranks: Sequence[RankReport]) -> Table:
    table = _table("", "peak", "first step", "steady", "reserved", "device", wide="")
    for rank in ranks:
        state = "out of memory" if rank.oom is not None else "" if rank.complete else "incomplete"
        table.add_row(
            clean(rank.device if rank.rank is None else f"rank {rank.rank}, {rank.device}"),
            _peak_bytes(rank.peak),
            _peak_bytes(rank.first_step_peak),
            _peak_bytes(rank.steady_state_peak),
            _bytes(rank.max_reserved_bytes),
            _bytes(rank.capacity_bytes),
            state,
        )
    return table


def _peak_bytes(peak: Peak | None) -> str:
    if peak is None:
        return _DASH
    return _bytes(peak.requested_bytes if peak.allocated_bytes is None else peak.allocated_bytes)


def _figures(rank: RankReport) -> Table:
    """Return peak, first step, steady state and end, each with requested, allocated, reserved and device."""
    table = _table("", "requested", "allocated", "reserved", "device", wide="when")
    for name, peak in (
        ("peak", rank.peak),
        ("peak of step 1", rank.first_step_peak),
        ("steady-state peak", rank.steady_state_peak),
    ):
        if peak is not None:
            label = "steady state, predicted" if peak.predicted else name
            table.add_row(label, *_state_cells(peak), _when(peak), style="bold" if name == "peak" else "")
    last = next((step.end for step in reversed(rank.steps) if step.end is not None), None)
    if last is not None:
        table.add_row("end of last step", *_state_cells(last), "")
    table.add_row("end", *_state_cells(rank.end), "")
    if rank.max_reserved_bytes is not None:
        table.add_row("largest reserved", "", "", _bytes(rank.max_reserved_bytes), "", "")
    if rank.capacity_bytes is not None:
        table.add_row("memory of the device", "", "", "", _bytes(rank.capacity_bytes), "")
    return table


def _prediction(peak: PredictedPeak) -> Text:
    """Return range, capacity and assumptions of a predicted peak."""
    lines = [f"The peak will be between {_bytes(peak.low_bytes)} and {_bytes(peak.high_bytes)}."]
    if peak.capacity_bytes is not None:
        answer = {True: "it fits", False: "it does not fit", None: "whether it fits is within the doubt"}[peak.fits]
        lines.append(f"It needs {_bytes(peak.needed_bytes)} of {_bytes(peak.capacity_bytes)}: {answer}.")
    lines += [f"Assumed: {clean(one)}" for one in peak.assumptions]
    return Text("\n".join(lines))


def _first_step(rank: RankReport) -> Table:
    """Return the first-step effects, and by how much the steady state's peak differs in each category."""
    table = _table("", "bytes", "later steps", wide="what")
    for effect in rank.first_step_effects:
        later = {True: "the same", False: "not", None: _DASH}[effect.stays]
        table.add_row(effect.slug, _bytes(effect.num_bytes), later, effect.title)
    changes = [(name, size) for name, size in (rank.steady_minus_first or {}).items() if size]
    if changes:
        parts = [f"{'+' if size > 0 else '-'}{_bytes(abs(size))} {clean(name)}" for name, size in changes]
        table.add_row("steady less first peak", "", "", ", ".join(parts))
    return table


def _state_cells(state: State) -> tuple[str, str, str, str]:
    return (
        _bytes(state.requested_bytes),
        _bytes(state.allocated_bytes),
        _bytes(state.reserved_bytes),
        _bytes(state.device_used_bytes),
    )


def _when(peak: Peak) -> str:
    step = None if peak.step is None else "before training" if peak.step == 0 else f"step {peak.step}"
    return clean(", ".join(part for part in (step, peak.phase, peak.module) if part)) or _DASH


def _categories(peak: Peak) -> RenderableType:
    """Return bytes by category, the unattributed ones last and apart, and how they were decided."""
    total = peak.requested_bytes or 0
    table = _table("", "bytes", "share", wide="")
    known = [(name, size) for name, size in peak.by_category.items() if name != Category.UNKNOWN.value and size]
    for name, size in sorted(known, key=lambda item: -item[1]):
        _add_category(table, clean(name.replace("_", " ")), name, size, total)
    table.add_section()
    _add_category(table, "unattributed", Category.UNKNOWN.value, peak.by_category.get(Category.UNKNOWN.value, 0), total)
    return Group(table, Text(_decided(peak.by_decision), style="dim"))


def _add_category(table: Table, label: str, name: str, size: int, total: int) -> None:
    share = size / total if total else 0.0
    bar = Text("━" * round(_BAR_WIDTH * share), style=_STYLES.get(name, "white"))
    table.add_row(label, _bytes(size), _percent(share), bar)


def _percent(share: float) -> str:
    return "<0.1 %" if 0 < share < 0.001 else f"{100 * share:.1f} %"


def _decided(by_decision: Mapping[str, int]) -> str:
    """Return one line that tells what is known from what was inferred and what nobody knows."""
    exact = sum(size for name, size in by_decision.items() if name in _EXACT)
    unknown = by_decision.get(Decision.UNKNOWN.value, 0)
    inferred = sum(by_decision.values()) - exact - unknown
    return f"exact {format_bytes(exact)}, inferred {format_bytes(inferred)}, unattributed {format_bytes(unknown)}"


def _modules(rank: RankReport) -> Table:
    table = _table("bytes", "allocations", wide="module")
    table.columns[0].justify = "right"
    for row in rank.top_modules[:MAX_MODULES]:
        name = Text(_DASH + " outside any module" if row.module is None else clean(row.module))
        name.append(f"  {_largest_categories(row.by_category)}", style="dim")
        table.add_row(_bytes(row.num_bytes), str(row.num_allocations), name)
    if len(rank.top_modules) > MAX_MODULES:
        table.add_row("", "", Text(f"and {len(rank.top_modules) - MAX_MODULES} more", style="dim"))
    return table


def _largest_categories(by_category: Mapping[str, int]) -> str:
    """Return the categories of some bytes, largest first: two of them by name, more as "…"."""
    names = sorted((name for name, size in by_category.items() if size), key=lambda name: -by_category[name])
    return ", ".join([*map(_category, names[:2]), *(["…"] if len(names) > 2 else [])])


def _category(name: str) -> str:
    return "unattributed" if name == Category.UNKNOWN.value else clean(name.replace("_", " "))


def _stacks(rows: Sequence[StackRow]) -> Table:
    table = _table("bytes", "allocations", wide="where")
    table.columns[0].justify = "right"
    for row in rows[:MAX_STACKS]:
        lines = _frames(row.frames) or ["no stack recorded"]
        where = Text(lines[0]).append(f"  {_category(row.category)}", style="dim")
        for line in lines[1:]:
            where.append(f"\n  {line}", style="dim")
        table.add_row(_bytes(row.num_bytes), str(row.num_allocations), where)
    return table


def _frames(frames: Sequence[str]) -> list[str]:
    """Return the innermost few frames of the user's own code; of any code where there is none."""
    return [clean(_short(frame)) for frame in own_frames(frames)[:_FRAMES_OF_STACK]]


def _short(frame: str) -> str:
    """Return a frame with the last two parts of its path.

    >>> _short("/home/me/project/models/gpt.py:30 forward")
    'models/gpt.py:30 forward'
    """
    place, space, function = frame.partition(" ")
    return "/".join(re.split(r"[/\\]", place)[-2:]) + space + function


def _steps(steps: Sequence[StepResult]) -> Table:
    """Return a row a step; of many steps the first and the last, and stretches that were not recorded as one row."""
    table = _table("step", "peak", "reserved", "at its end", "mallocs", "time", wide="")
    groups = _groups(steps)
    hidden = len(groups) - MAX_STEPS
    for at, group in enumerate(groups):
        if hidden > 1 and MAX_STEPS // 2 <= at < MAX_STEPS // 2 + hidden:
            if at == MAX_STEPS // 2:
                table.add_row("…", "", "", "", "", "", Text(f"{hidden} more rows", style="dim"))
            continue
        if _is_missing(group[0]):
            label = f"{group[0].step}" if len(group) == 1 else f"{group[0].step} to {group[-1].step}"
            table.add_row(label, *[_DASH] * 5, Text("not recorded", style="dim"))
        else:
            table.add_row(*_step_cells(group[0]))
    return table


def _groups(steps: Sequence[StepResult]) -> list[list[StepResult]]:
    """Return the steps, those in a row that were not recorded as one group."""
    groups: list[list[StepResult]] = []
    for step in steps:
        if groups and _is_missing(step) and _is_missing(groups[-1][-1]):
            groups[-1].append(step)
        else:
            groups.append([step])
    return groups


def _is_missing(step: StepResult) -> bool:
    """Return whether nothing of a step was recorded but that it was."""
    return not step.recorded and step.peak_requested_bytes is None


def _step_cells(step: StepResult) -> tuple[str | Text, ...]:
    end = step.end
    at_end = None if end is None else end.requested_bytes if end.allocated_bytes is None else end.allocated_bytes
    duration = None if step.end_ns is None or step.start_ns is None else step.end_ns - step.start_ns
    peak = step.peak_requested_bytes if step.peak_allocated_bytes is None else step.peak_allocated_bytes
    remarks = [
        "skipped by the gradient scaler" if step.skipped else "",
        "did not end" if step.end_ns is None else "",
        f"{step.num_microbatches} microbatches" if step.num_microbatches > 1 else "",
    ]
    return (
        str(step.step),
        _bytes(peak),
        _bytes(step.max_reserved_bytes),
        _bytes(at_end),
        _DASH if step.num_device_mallocs is None else str(step.num_device_mallocs),
        _DASH if duration is None else format_ns(duration),
        Text(", ".join(remark for remark in remarks if remark), style="dim"),
    )


def _oom(rank: RankReport) -> Group:
    oom = rank.oom
    assert oom is not None
    table = Table(box=None, pad_edge=False, show_header=False)
    step = None if oom.step is None else f"step {oom.step}"
    for name, value in (
        ("when", clean(", ".join(part for part in (step, oom.phase, oom.module) if part)) or _DASH),
        ("asked for", _bytes(oom.request_bytes)),
        ("free on the device", _bytes(oom.free_bytes)),
        ("reserved but unallocated", _bytes(oom.reserved_unallocated_bytes)),
        ("largest free block", _bytes(oom.largest_free_block_bytes)),
        ("cause", clean(oom.cause or "not known")),
    ):
        table.add_row(name, value)
    return Group(table, *(Text(clean(sentence)) for sentence in oom.explanation))


def _findings(findings: Iterable[Finding]) -> Group:
    parts: list[RenderableType] = []
    for finding in findings:
        line = Text(clean(finding.title), style="bold")
        if finding.saves_bytes is not None:
            line.append(f"  saves {format_bytes(finding.saves_bytes)}", style="green")
        parts += [line, Padding(Text(clean(finding.change)), (0, 0, 0, 2))]
    return Group(*parts)


def _notes(notes: Iterable[Note]) -> Table:
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for note in notes:
        text = Text(clean(note.message))
        if note.count > 1:
            text.append(f" ({note.count} times)", style="dim")
        table.add_row(_DASH, text.append(f" [{clean(note.slug)}]", style="dim"))
    return table
