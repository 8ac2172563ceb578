"""Verdict, findings, steps, what-if, document and page are asked the same questions; no two answers contradict."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest

from memtrace.analysis.asked.what_ifs import Asked, try_what_ifs
from memtrace.analysis.report import analyze
from memtrace.analysis.results.report import Finding, Peak, RankReport, Report, State
from memtrace.errors import MemtraceError
from memtrace.report.json.report import report_document
from memtrace.report.page.data.payload import report_payload
from memtrace.report.terminal.report import render_text
from memtrace.store.trace import Trace
from memtrace.units import format_bytes
from tests.analysis.small_trace import trace
from tests.analysis.test_leaks import KIB, Kept, loop
from tests.gold.made_runs import MADE_RUNS, ranks_of

OF_RESERVED = ("expandable-segments", "fragmentation")
"""Findings whose bytes are reserved ones."""
OF_KEPT = ("leak", "kept-for-steps")
"""Findings of what outlives its step."""
MAY_FALL = ("_minus_", "difference")
"""What may be below zero: differences."""


def made_loops() -> Iterator[tuple[str, Trace]]:
    """Yield runs that leak, drop at once what they kept, grow, and have gaps."""
    own = Kept(400 * KIB, 0, line=2)
    gap = [1, 2, 3, 11, 12]
    epochs = [Kept(100 * KIB, 6 - at if at <= 6 else None, first=at, last=at, stack=0) for at in range(1, 13)]
    growing = [Kept(50 * at * KIB, 1, first=at, last=at, stack=0) for at in range(1, 13)]
    for name, things in (("leak", [Kept(100 * KIB, None), own]), ("epochs", epochs), ("growing", growing)):
        for recorded in (None, gap):
            yield f"{name}{'' if recorded is None else '-gap'}", trace(loop(things, num_steps=12, recorded=recorded))


TRACES = [
    *(pytest.param(trace(*ranks_of(number)[1]), id=f"made-{number}") for number in MADE_RUNS[::2]),
    *(pytest.param(made, id=name) for name, made in made_loops()),
]


def height(state: State) -> int | None:
    return state.requested_bytes if state.allocated_bytes is None else state.allocated_bytes


def reports_of(made: Trace) -> Iterator[Report]:
    """Yield the report of a trace, and those for a device that is too small, and one that is just large enough."""
    plain = analyze(made)
    yield plain
    peak = max((height(rank.peak) or 0 for rank in plain.ranks), default=0)
    if peak > 1:
        yield analyze(made, capacity_bytes=peak)
        yield analyze(made, capacity_bytes=peak // 2)


def numbers_in(value: Any, name: str = "") -> Iterator[tuple[str, int]]:
    """Yield every number of bytes of a document with its name."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield from numbers_in(item, f"{name}.{key}")
    elif isinstance(value, list):
        for item in value:
            yield from numbers_in(item, name)
    elif isinstance(value, int) and not isinstance(value, bool) and name.endswith("_bytes"):
        yield name, value


@pytest.mark.parametrize("made", TRACES)
def test_no_two_answers_contradict(made: Trace) -> None:
    for report in reports_of(made):
        for rank in report.ranks:
            of_rank(rank)
        for finding in report.findings:
            of_finding(finding, report)
        of_verdict(report)
        of_document(report)
        of_page(report)
    of_what_ifs(made)
    of_remedies(made)


def of_rank(rank: RankReport) -> None:
    """A peak is no lower than that of any step, and what it consists of adds up to it."""
    peak = rank.peak
    for state in (peak, rank.end, *(step.end for step in rank.steps if step.end is not None)):
        if state.requested_bytes is not None:
            assert sum(state.by_category.values()) == state.requested_bytes == sum(state.by_decision.values())
            assert min(state.by_category.values(), default=0) >= 0
    for step in rank.steps:
        for own, whole in (
            (step.peak_requested_bytes, peak.requested_bytes if peak.allocated_bytes is None else None),
            (step.peak_allocated_bytes, peak.allocated_bytes),
        ):
            assert own is None or whole is None or own <= whole
        if step.step == peak.step and step.recorded:
            same = step.peak_requested_bytes if peak.allocated_bytes is None else step.peak_allocated_bytes
            assert same == height(peak)
    for rows in (rank.top_modules, rank.top_stacks):
        assert sum(row.num_bytes for row in rows) <= (peak.requested_bytes or 0)
    for leak in rank.leaks:
        assert 0 <= leak.live_bytes <= (height(peak) or 0)
    if rank.oom is not None and rank.oom.predicted:
        assert rank.oom.capacity_bytes is not None
        assert (height(peak) or 0) > rank.oom.capacity_bytes
        assert rank.oom.missing_bytes is not None
        assert 0 < rank.oom.missing_bytes <= (height(peak) or 0) - rank.oom.capacity_bytes


def of_finding(finding: Finding, report: Report) -> None:
    """What it saves and the new peak are the peak of its rank together, and neither is below zero."""
    if finding.saves_bytes is not None:
        assert finding.saves_bytes >= 0
    if finding.new_peak_bytes is None:
        return
    assert finding.new_peak_bytes >= 0
    assert finding.saves_bytes is not None
    before = finding.saves_bytes + finding.new_peak_bytes
    own = [rank for rank in report.ranks if rank.rank == finding.rank or finding.rank is None]
    if finding.slug in OF_RESERVED:
        assert before in [rank.max_reserved_bytes for rank in own], finding
    else:
        assert before in [height(rank.peak) for rank in own], finding
    whole = max(before, *(height(rank.peak) or 0 for rank in own))
    for name, value in finding.evidence.items():
        if name.endswith("at_peak_bytes"):
            assert 0 <= value <= whole, (finding.slug, name)


def of_verdict(report: Report) -> None:
    """It tells the peak of the rank that it is about, and the first finding that warns."""
    if report.main_rank is None:
        return
    rank = report.ranks[report.main_rank]
    if rank.oom is None and height(rank.peak) is not None:
        assert format_bytes(height(rank.peak)) in report.verdict
    assert not re.search(r"(?<![\w.])-\d", report.verdict)


def of_document(report: Report) -> None:
    """The document has the same peaks, and no bytes below zero."""
    document = report_document(report)
    for rank, shown in zip(report.ranks, document["ranks"], strict=True):
        assert shown["peak"]["requested_bytes"] == rank.peak.requested_bytes
        assert shown["peak"]["allocated_bytes"] == rank.peak.allocated_bytes
    below = [name for name, value in numbers_in(document) if value < 0 and not any(one in name for one in MAY_FALL)]
    assert below == []
    assert [one["new_peak_bytes"] for one in document["findings"]] == [one.new_peak_bytes for one in report.findings]


def of_page(report: Report) -> None:
    """The page shows the same peak, steps and verdict, as does the text of the terminal."""
    payload, text = report_payload(report, version="0"), render_text(report)
    assert payload["verdict"] == report.verdict
    for rank, view in zip(report.ranks, payload["ranks"], strict=True):
        of_peak = [card["value"] for card in view["cards"] if card["key"] == "peak"]
        assert of_peak in ([], [format_bytes(height(rank.peak))])
        rows = [row for row in (view["steps"] or {"rows": []})["rows"] if row["recorded"]]
        assert len(rows) == sum(step.recorded for step in rank.steps)
    peaks: list[Peak] = [rank.peak for rank in report.ranks[:1]]
    for peak in peaks:
        assert height(peak) is None or format_bytes(height(peak)) in text


def of_what_ifs(made: Trace) -> None:
    """What is replayed as it was peaks where the report says."""
    ranks = {(rank.rank, rank.device): rank for rank in analyze(made).ranks}
    try:
        found, _ = try_what_ifs(made, Asked(capacities_bytes=(2**50,)))
    except MemtraceError:
        return
    for one in found:
        rank, recorded = ranks[one.rank, one.device], one.rows[0]
        assert recorded.peak_requested_bytes <= recorded.peak_allocated_bytes <= recorded.max_reserved_bytes
        if rank.peak.allocated_bytes is not None and recorded.oom is None and one.fidelity.is_exact:
            assert recorded.peak_allocated_bytes == rank.peak.allocated_bytes


def of_remedies(made: Trace) -> None:
    """What was replayed, or is of allocations that were recorded, is where a what-if with the remedy peaks."""
    report = analyze(made)
    if len(report.ranks) > 1:
        return
    for finding in report.findings:
        is_replayed = finding.evidence.get("is_replayed")
        if finding.new_peak_bytes is None or not (is_replayed or finding.slug in OF_KEPT):
            continue
        try:
            (found,), _ = try_what_ifs(made, Asked(remedies=(finding.slug,), as_cuda=True))
        except MemtraceError:
            assert finding.evidence["extrapolated_at_peak_bytes"] > 0
            continue
        row = found.rows[-1]
        assert finding.new_peak_bytes == (row.peak_allocated_bytes if is_replayed else row.peak_requested_bytes)
