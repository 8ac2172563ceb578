"""Over twenty recordings: the same question has the same number in every view, and a label never claims too much."""

from __future__ import annotations

import json
import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from memtrace.analysis.asked.check import check, parse_budget
from memtrace.analysis.asked.diff import compare
from memtrace.analysis.asked.trend import trend
from memtrace.analysis.results.report import RankReport, Report
from memtrace.parallel.run import report_of
from memtrace.report.exchange.card_markdown import card_markdown
from memtrace.report.exchange.card_svg import card_svg
from memtrace.report.json.report import report_document
from memtrace.report.page.data.payload import report_payload
from memtrace.report.terminal.card import card_lines
from memtrace.report.terminal.report import render_text
from memtrace.schema.names import CATEGORY_WORDS
from memtrace.units import format_bytes
from tests.conftest import ROOT

TRACES = sorted([*(ROOT / "tests/gold/traces").iterdir(), *(ROOT / "samples/recordings").glob("*.json.gz")])


@cache
def report_of_file(path: Path) -> Report:
    return report_of([path], with_map=True)


def height(rank: RankReport) -> int | None:
    peak = rank.peak
    return peak.requested_bytes if peak.allocated_bytes is None else peak.allocated_bytes


@pytest.fixture(params=TRACES, ids=lambda path: path.name.partition(".")[0])
def report(request: pytest.FixtureRequest) -> Report:
    return report_of_file(request.param)


def test_there_are_ten_recordings_or_more() -> None:
    assert len(TRACES) >= 10


def test_rows_of_stacks_and_modules_hold_no_more_of_a_category_than_there_is(report: Report) -> None:
    for rank in report.ranks:
        for rows in (rank.top_stacks, rank.top_modules):
            held: dict[str, int] = {}
            for row in rows:
                assert sum(row.by_category.values()) == row.num_bytes
                for name, num_bytes in row.by_category.items():
                    held[name] = held.get(name, 0) + num_bytes
            for name, num_bytes in held.items():
                assert num_bytes <= rank.peak.by_category[name]


def test_a_row_that_is_called_by_one_category_is_of_that_one_alone(report: Report) -> None:
    """What the page and the terminal say beside a row: a name alone, or names with bytes that add up to the row."""
    payload = report_payload(report, version="0")
    for rank, view in zip(report.ranks, payload["ranks"], strict=True):
        for row, shown in zip(rank.top_stacks, view["stacks"]["rows"], strict=False):
            kinds = [name for name, num_bytes in row.by_category.items() if num_bytes]
            is_name_alone = shown["category"] in CATEGORY_WORDS.values()
            assert is_name_alone == (len(kinds) == 1)
            assert sum(part["bytes"] for part in shown["parts"]) == row.num_bytes


def test_allocations_are_counted_alike_on_the_map_in_the_document_and_on_the_card(report: Report) -> None:
    payload, document = report_payload(report, version="0"), report_document(report)
    for rank, view, shown in zip(report.ranks, payload["ranks"], document["ranks"], strict=True):
        found = rank.allocation_map
        if found is not None:
            assert len(found.start) - int(found.is_initial.sum()) == rank.num_allocations
        assert shown["num_allocations"] == rank.num_allocations
        detail = next(card["detail"] for card in view["cards"] if card["key"] == "completeness")
        assert f"{rank.num_allocations:,} allocations" in detail or not rank.num_events


def test_steps_take_the_same_time_in_every_table(report: Report) -> None:
    text = render_text(report)
    payload = report_payload(report, version="0")
    tables = {name: text.partition(f"\n{name}\n")[2].partition("\n\n")[0] for name in ("Steps", "Time by phase")}
    first = {name: dict(times_of(table)) for name, table in tables.items()}
    for step in first["Steps"].keys() & first["Time by phase"].keys():
        assert first["Steps"][step] == first["Time by phase"][step]
    for rank, view in zip(report.ranks[:1], payload["ranks"][:1], strict=True):
        on_page = {row["label"]: row["duration"] for row in view["steps"]["rows"] if row["recorded"]}
        assert rank.step_times is None or on_page
        for step in on_page.keys() & first["Steps"].keys():
            assert on_page[step] == first["Steps"][step]


def times_of(table: str) -> list[tuple[str, str]]:
    """Return steps and what stands below "time" in a table of the terminal."""
    lines = table.splitlines()
    if not lines or "time" not in lines[0].split():
        return []
    end = lines[0].index("time") + len("time")
    rows = [(line.split()[0], re.search(r"(\S+ \S+)$", line[:end])) for line in lines[2:] if line.strip()]
    return [(step, match[1].strip()) for step, match in rows if match is not None]


def test_the_peak_is_the_same_in_every_answer(report: Report) -> None:
    card = report.card
    assert card is not None
    peak, shown = card.peak_bytes, format_bytes(card.peak_bytes)
    assert report.main_rank is not None
    assert peak == height(report.ranks[report.main_rank])
    for text in (
        *([report.verdict] if report.ranks[report.main_rank].oom is None else []),
        render_text(report, full=False),
        "\n".join(line.plain for line in card_lines(card)),
        card_markdown(card, title="t"),
        card_svg(card),
    ):
        assert shown in text
    held = check(report, [parse_budget("peak=1TiB")])
    assert held.budgets[0].value_bytes == max(height(rank) or 0 for rank in report.ranks)
    same = compare(report, report)
    assert {rank.peak_a_bytes for rank in same.ranks} == {rank.peak_b_bytes for rank in same.ranks}
    assert all(not rank.delta_by_category for rank in same.ranks)
    assert trend([report, report], title="x").runs[0].peak_bytes == same.ranks[0].peak_a_bytes


def test_a_change_saves_the_same_wherever_it_is_told(report: Report) -> None:
    card = report.card
    assert card is not None
    document: dict[str, Any] = json.loads(json.dumps(report_document(report), default=str))
    assert report.main_rank is not None
    rank = report.ranks[report.main_rank]
    wholes = {
        "allocated": rank.peak.allocated_bytes,
        "requested": rank.peak.requested_bytes,
        "reserved": rank.max_reserved_bytes,
    }
    by_slug = {one["slug"]: one for one in reversed(document["findings"]) if one["rank"] in (rank.rank, None)}
    texts = ["\n".join(line.plain for line in card_lines(card)), card_markdown(card, title="t"), card_svg(card)]
    for change in card.changes:
        if change.saves_bytes is not None and change.new_peak_bytes is not None:
            assert change.saves_bytes + change.new_peak_bytes == wholes[change.basis]
        assert change.saves_bytes == by_slug[change.slug]["saves_bytes"]
        assert change.new_peak_bytes == by_slug[change.slug]["new_peak_bytes"]
        for text in texts:
            for num_bytes in (change.saves_bytes, change.new_peak_bytes):
                assert num_bytes is None or format_bytes(num_bytes) in text


def test_no_two_labels_of_one_list_of_evidence_are_alike(report: Report) -> None:
    payload = report_payload(report, version="0")
    found = [one for rank in payload["ranks"] for one in rank["findings"]] + payload["findings"]
    for one in found:
        labels = [label for label, _ in one["evidence"]]
        assert len(labels) == len(set(labels)), one["slug"]


def test_nothing_is_called_complete_of_which_steps_were_left_out(report: Report) -> None:
    payload = report_payload(report, version="0")
    for rank, view in zip(report.ranks, payload["ranks"], strict=True):
        card = next((card for card in view["cards"] if card["key"] == "completeness"), None)
        if card is not None and rank.unrecorded is not None and rank.unrecorded.num_steps:
            assert card["value"] != "complete"
            assert f"{rank.unrecorded.num_steps:,} step" in card["detail"] or not rank.complete
