"""The sections of a report in a terminal: each with the name by which it is asked for, in the order of reading.

In: `Report`. Out: `Section`s. What stands in one is drawn by the files beside this one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rich.console import RenderableType

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

NAMES = (
    *("ranks", "outliers", "sharing", "savings", "oom", "memory", "categories", "activations", "prediction"),
    *("first-step", "effects", "modules", "stacks", "steps", "gpu-time", "phases", "communication", "fragmentation"),
    *("not-seen", "not-read", "changes", "next"),
)
"""Every section by the name that `--section` takes, in the order of reading."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """One section."""

    name: str
    """One of `NAMES`."""
    title: str
    """Its heading."""
    body: RenderableType
    """What stands in it."""
    rank: str | None = None
    """The rank or device that it is about, where the report shows several."""

    def parts(self) -> list[RenderableType]:
        """Return it as lines, the first of them empty."""
        return section(self.title, self.body)


def sections_of(report: Report) -> list[Section]:
    """Return all sections of a report."""
    return list(_sections(report))


def rank_name(rank: RankReport) -> str:
    """Return what a rank is called where there are several."""
    name = rank.device if rank.rank is None else f"rank {rank.rank}, {rank.device}"
    return clean(name if rank.complete else f"{name}, recording incomplete")


def _sections(report: Report) -> Iterator[Section]:
    if report.ranks_overview is not None:
        yield from _of_run(report.ranks_overview)
    elif len(report.ranks) > 1:
        heading = "Ranks" if len({one.rank for one in report.ranks}) > 1 else "Devices"
        yield Section(name="ranks", title=heading, body=text_rows.ranks(report.ranks))
    for rank in _detailed(report):
        yield from _of_rank(rank, name=rank_name(rank) if len(report.ranks) > 1 else None)
    if report.warnings:
        yield Section(name="not-read", title="Not read", body=notes(report.warnings))
    if report.findings:
        yield Section(name="changes", title="What to change", body=text_findings.findings(report.findings))
    if report.next_commands:
        yield Section(name="next", title="Next", body=text_findings.commands(report.next_commands))


def _of_run(ranks: RanksResult) -> Iterator[Section]:
    """Yield what comparing ranks tells."""
    yield Section(name="ranks", title="Ranks", body=text_ranks.overview(ranks))
    if ranks.outliers:
        yield Section(name="outliers", title="Ranks that stand out", body=text_ranks.differences(ranks.outliers))
    if ranks.schemes:
        yield Section(name="sharing", title="How the ranks share the work", body=text_ranks.schemes(ranks.schemes))
    if ranks.savings:
        yield Section(name="savings", title="On several ranks", body=text_ranks.savings(ranks))


def _detailed(report: Report) -> Sequence[RankReport]:
    """Return the ranks to show in full: of a run the one that the verdict is about, else the first two devices."""
    if report.main_rank is None or (report.ranks_overview is None and len(report.ranks) <= 2):
        return report.ranks[:2]
    return (report.ranks[report.main_rank],)


def _of_rank(rank: RankReport, *, name: str | None) -> Iterator[Section]:
    """Yield all sections of one rank."""
    for key, title, body in (*_of_memory(rank), *_of_time(rank)):
        yield Section(name=key, title=title, body=body, rank=name)


_Found = Iterator[tuple[str, str, RenderableType]]


def _of_memory(rank: RankReport) -> _Found:
    if rank.oom is not None:
        yield "oom", "Out of memory", text_findings.out_of_memory(rank.oom)
    if rank.peak.requested_bytes is not None or rank.time is None:
        yield "memory", "Memory", text_memory.figures(rank)
    yield from _of_peaks(rank)
    if rank.top_modules:
        yield "modules", "Modules at the peak", text_rows.modules(rank)
    if any(row.frames for row in rank.top_stacks):
        yield "stacks", "Stacks at the peak", text_rows.stacks(rank.top_stacks)
    if rank.steps:
        yield "steps", "Steps", text_rows.steps(rank)


def _of_time(rank: RankReport) -> _Found:
    if rank.time is not None:
        yield "gpu-time", "Time on the GPU", text_time.gpu_time(rank.time)
    if rank.step_times is not None:
        yield "phases", "Time by phase", text_step_times.step_times(rank.step_times)
    if rank.communication is not None:
        yield "communication", "Communication", text_communication.communication(rank.communication)
    if rank.fragmentation is not None and not rank.fragmentation.is_model:
        yield "fragmentation", "Fragmentation", text_pools.fragmentation(rank.fragmentation)
    if rank.warnings:
        yield "not-seen", "Not seen", notes(rank.warnings)


def _of_peaks(rank: RankReport) -> _Found:
    """Yield what the peaks are made of, and what sets the first step apart from those after it."""
    first, steady, difference = rank.first_step_peak, rank.steady_state_peak, rank.steady_minus_first
    if rank.peak.requested_bytes:
        yield "categories", "At the peak", text_memory.categories(rank.peak)
    if rank.activations is not None and rank.activations.num_bytes:
        yield "activations", "Activations at the peak", text_memory.activations(rank.activations)
    if isinstance(steady, PredictedPeak):
        yield "prediction", "From step 2 on, predicted", text_memory.prediction(steady)
    if first is not None and steady is not None and difference is not None and any(difference.values()):
        yield "first-step", "Peak of step 1 and after", text_memory.first_and_later(first, steady, difference)
    if rank.first_step_effects:
        yield "effects", "What makes step 1 different", text_memory.effects(rank.first_step_effects)
