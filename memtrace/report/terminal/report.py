"""The report in a terminal: the verdict, then what it rests on, then what to change and what to type next.

In: `Report`. Out: text, with colour only where the terminal has it. Every number is a field of a result. The sections
are in the files beside this one; only this folder imports rich.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import IO

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.text import Text

from memtrace.analysis.results.ranks import RanksResult
from memtrace.analysis.results.report import PredictedPeak, RankReport, Report
from memtrace.printable import clean
from memtrace.report.terminal import communication as text_communication
from memtrace.report.terminal import findings as text_findings
from memtrace.report.terminal import memory as text_memory
from memtrace.report.terminal import overview as text_rows
from memtrace.report.terminal import pools as text_pools
from memtrace.report.terminal import ranks as text_ranks
from memtrace.report.terminal import step_times as text_step_times
from memtrace.report.terminal import time as text_time
from memtrace.report.terminal.cells import notes, section
from memtrace.report.terminal.console import MAX_WIDTH, as_text, print_to


def print_report(report: Report, *, file: IO[str] | None = None) -> None:
    """Print the report to a file, standard output if none is given, in the colours and width of a terminal."""
    print_to(file or sys.stdout, _report(report))


def render_text(report: Report, *, width: int = MAX_WIDTH) -> str:
    """Return the report as plain text of a width, without colour."""
    return as_text(_report(report), width=width)


def _report(report: Report) -> Group:
    """Return the whole report."""
    parts: list[RenderableType] = [
        Text(f"memtrace  {clean(report.title)}", style="dim"),
        "",
        Padding(Text(clean(report.verdict), style="bold"), (0, 2)),
    ]
    if report.ranks_overview is not None:
        parts += [part for title, body in _of_run(report.ranks_overview) for part in section(title, body)]
    elif len(report.ranks) > 1:
        heading = "Ranks" if len({one.rank for one in report.ranks}) > 1 else "Devices"
        parts += section(heading, text_rows.ranks(report.ranks))
    for rank in _detailed(report):
        parts += _rank(rank, named=len(report.ranks) > 1)
    if report.warnings:
        parts += section("Not read", notes(report.warnings))
    if report.findings:
        parts += section("What to change", text_findings.findings(report.findings))
    if report.next_commands:
        parts += section("Next", text_findings.commands(report.next_commands))
    return Group(*parts)


def _of_run(ranks: RanksResult) -> list[tuple[str, RenderableType]]:
    """Return what comparing ranks tells."""
    parts: list[tuple[str, RenderableType]] = [("Ranks", text_ranks.overview(ranks))]
    if ranks.outliers:
        parts.append(("Ranks that stand out", text_ranks.differences(ranks.outliers)))
    if ranks.schemes:
        parts.append(("How the ranks share the work", text_ranks.schemes(ranks.schemes)))
    if ranks.savings:
        parts.append(("On several ranks", text_ranks.savings(ranks)))
    return parts


def _detailed(report: Report) -> Sequence[RankReport]:
    """Return the ranks to show in full: of a run the one that the verdict is about, else the first two devices."""
    if report.main_rank is None or (report.ranks_overview is None and len(report.ranks) <= 2):
        return report.ranks[:2]
    return (report.ranks[report.main_rank],)


def _rank(rank: RankReport, *, named: bool) -> list[RenderableType]:
    """Return all sections of one rank."""
    parts: list[RenderableType] = []
    if named:
        parts += ["", Text(_rank_name(rank), style="bold underline")]
    if rank.oom is not None:
        parts += section("Out of memory", text_findings.out_of_memory(rank.oom))
    if rank.peak.requested_bytes is not None or rank.time is None:
        parts += section("Memory", text_memory.figures(rank))
    parts += [part for title, body in _of_peaks(rank) for part in section(title, body)]
    if rank.top_modules:
        parts += section("Modules at the peak", text_rows.modules(rank))
    if any(row.frames for row in rank.top_stacks):
        parts += section("Stacks at the peak", text_rows.stacks(rank.top_stacks))
    if rank.steps:
        parts += section("Steps", text_rows.steps(rank.steps))
    if rank.time is not None:
        parts += section("Time on the GPU", text_time.gpu_time(rank.time))
    if rank.step_times is not None:
        parts += section("Time by phase", text_step_times.step_times(rank.step_times))
    if rank.communication is not None:
        parts += section("Communication", text_communication.communication(rank.communication))
    if rank.fragmentation is not None and not rank.fragmentation.is_model:
        parts += section("Fragmentation", text_pools.fragmentation(rank.fragmentation))
    if rank.warnings:
        parts += section("Not seen", notes(rank.warnings))
    return parts


def _of_peaks(rank: RankReport) -> list[tuple[str, RenderableType]]:
    """Return what the peaks are made of, and what sets the first step apart from those after it."""
    parts: list[tuple[str, RenderableType]] = []
    first, steady, difference = rank.first_step_peak, rank.steady_state_peak, rank.steady_minus_first
    if rank.peak.requested_bytes:
        parts.append(("At the peak", text_memory.categories(rank.peak)))
    if rank.activations is not None and rank.activations.num_bytes:
        parts.append(("Activations at the peak", text_memory.activations(rank.activations)))
    if isinstance(steady, PredictedPeak):
        parts.append(("From step 2 on, predicted", text_memory.prediction(steady)))
    if first is not None and steady is not None and difference is not None and any(difference.values()):
        parts.append(("Peak of step 1 and after", text_memory.first_and_later(first, steady, difference)))
    if rank.first_step_effects:
        parts.append(("What makes step 1 different", text_memory.effects(rank.first_step_effects)))
    return parts


def _rank_name(rank: RankReport) -> str:
    name = rank.device if rank.rank is None else f"rank {rank.rank}, {rank.device}"
    return clean(name if rank.complete else f"{name}, recording incomplete")
