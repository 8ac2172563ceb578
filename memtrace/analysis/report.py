"""The report of a run: the analyses of its ranks put together.

In: `Trace`, or the `RankAnalysis` of each of its ranks. Out: `Report`, which the renderers draw.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence

from memtrace.analysis.advice.find import behind_faults, in_order
from memtrace.analysis.card.card import card_of
from memtrace.analysis.diagnosis.notes import notes_of_trace
from memtrace.analysis.each_rank import of_each_rank
from memtrace.analysis.rank_analysis import RankAnalysis, analyze_rank
from memtrace.analysis.ranks.compare import compare_ranks
from memtrace.analysis.ranks.findings import findings_of_run
from memtrace.analysis.results.report import Report
from memtrace.analysis.sentences.next_commands import next_commands
from memtrace.analysis.sentences.verdict import main_rank, verdict
from memtrace.store.trace import LoadWarning, Trace


def analyze(trace: Trace, *, capacity_bytes: int | None = None, with_map: bool = False) -> Report:
    """Return the report of a trace; `capacity_bytes` stands in for the total memory of the devices.

    `with_map` adds every allocation, for viewers.
    """
    analyses, failed = analyze_ranks(trace, capacity_bytes=capacity_bytes, with_map=with_map)
    return combine(analyses, title=trace.path, warnings=[*trace.warnings, *failed])


def analyze_ranks(
    trace: Trace, *, capacity_bytes: int | None = None, with_map: bool = False
) -> tuple[list[RankAnalysis], list[LoadWarning]]:
    """Return the analysis of every rank of a trace, and a warning for each that could not be analysed.

    Raises:
        Exception: what the first rank came to, where none could be analysed.
    """
    return of_each_rank(
        trace, lambda rank: analyze_rank(rank, trace.header, capacity_bytes=capacity_bytes, with_map=with_map)
    )


def combine(analyses: Sequence[RankAnalysis], *, title: str, warnings: Iterable[LoadWarning] = ()) -> Report:
    """Return the report of ranks that were analysed one by one, in the order in which they are to be shown.

    `title` is what was read; `warnings` are about files and ranks that are missing.
    """
    ranks = tuple(report for analysis in analyses for report in analysis.devices)
    overview = compare_ranks(ranks)
    of_ranks = [finding for analysis in analyses for finding in analysis.findings]
    findings = in_order(behind_faults(findings_of_run(of_ranks, overview, ranks)))
    notes = notes_of_trace(warnings)
    report = Report(
        verdict=verdict(ranks, findings, notes),
        ranks=ranks,
        findings=findings,
        warnings=notes,
        title=title,
        main_rank=main_rank(ranks),
        next_commands=next_commands(title, ranks, findings),
        ranks_overview=overview,
    )
    return dataclasses.replace(report, card=card_of(report))
