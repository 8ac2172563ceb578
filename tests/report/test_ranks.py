"""The ranks of a run in text and JSON: every number is that of the comparison, and 512 ranks are as short as 16."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from memtrace.analysis.ranks.compare import compare_ranks
from memtrace.analysis.results.ranks import Difference, RankFacts
from memtrace.analysis.results.report import Peak, Report
from memtrace.report.json.report import report_json
from memtrace.report.terminal.report import render_text
from memtrace.units import format_bytes
from tests.analysis.made_ranks import copies, made_rank, report_of
from tests.fake_report import HOSTILE, MIB
from tests.report.contract import check_report


def run(num_ranks: int, **how: Any) -> Report:
    """Return a run of one real rank, copied: each rank peaks a MiB higher than the one before."""
    one = report_of(made_rank(0, num_ranks, copies({"a.w": (64, 64), "blocks.0.w": (41, 8)}), ddp=True, **how)).ranks[0]
    reports = tuple(replace(one, rank=rank, peak=higher(one.peak, rank * MIB)) for rank in range(num_ranks))
    return Report(
        verdict="x",
        ranks=reports,
        findings=(),
        warnings=(),
        title="run",
        main_rank=num_ranks - 1,
        ranks_overview=compare_ranks(reports),
    )


def higher(peak: Peak, num_bytes: int) -> Peak:
    """Return a peak with more activations."""
    total = (peak.requested_bytes or 0) + num_bytes
    return replace(
        peak,
        allocated_bytes=total,
        requested_bytes=total,
        by_category={**peak.by_category, "activation": num_bytes},
        by_decision={**peak.by_decision, "hook": num_bytes},
    )


def head(report: Report) -> list[str]:
    """Return what stands before the rank that is shown in full."""
    assert report.main_rank is not None
    lines = render_text(report).splitlines()
    return lines[: lines.index(f"rank {report.ranks[report.main_rank].rank}, cpu")]


def test_a_few_ranks_have_a_row_each() -> None:
    report = run(8)
    rows = [line for line in head(report) if line.strip().startswith("rank ")]
    assert [line.split()[1] for line in rows] == [f"{rank}," for rank in range(8)]
    for row, rank in zip(rows, report.ranks, strict=True):
        assert format_bytes(rank.peak.requested_bytes) in row


def test_many_ranks_are_as_short_as_sixteen() -> None:
    few, many = head(run(16)), head(run(512))
    assert len(many) == len(few)
    (row,) = [line for line in many if line.strip().startswith("all ")]
    whole = run(512).ranks_overview.spreads[0]  # type: ignore[union-attr]
    amounts = (whole.min_bytes, whole.median_bytes, whole.max_bytes)
    assert all(format_bytes(one) in row for one in amounts)
    assert row.split()[-1] == "511"
    assert "rank 300" not in "".join(many)


def test_savings_name_the_ranks_that_they_are_least_and_most_on() -> None:
    report = run(4)
    found = report.ranks_overview
    assert found is not None
    (row,) = [line for line in head(report) if "ZeRO-3" in line]
    assert format_bytes(min(one.zero_3_bytes for one in found.savings)) in row
    # Of 41 rows the last rank would have eight, the others eleven.
    assert row.split()[-1] == "3"


def test_missing_and_failed_ranks_are_told() -> None:
    whole = run(12)
    ranks = [one for one in whole.ranks if one.rank not in (3, 5)]
    ranks[1] = replace(ranks[1], complete=False)
    report = replace(whole, ranks=tuple(ranks), main_rank=0, ranks_overview=compare_ranks(ranks))
    text = "\n".join(head(report))
    assert "10 of 12 ranks were given; no trace of 3, 5." in text
    assert "Rank 1: incomplete, last step 1" in text


@pytest.mark.parametrize("width", [80, 100])
def test_names_out_of_files_do_no_harm(width: int) -> None:
    report = run(3)
    found = report.ranks_overview
    assert found is not None
    assert found.highest is not None
    hostile = replace(
        found.highest,
        by_module=tuple(Difference(name=name, num_bytes=1, median_bytes=2) for name in HOSTILE),
        facts=HOSTILE,
    )
    schemes = tuple(replace(found.schemes[0], name=name, how=name) for name in HOSTILE)
    rows = tuple(replace(row, host=HOSTILE[3], device=HOSTILE[2]) for row in found.ranks)
    report = replace(report, ranks_overview=replace(found, outliers=(hostile,), schemes=schemes, ranks=rows))
    text = render_text(report, width=width)
    assert all(char.isprintable() or char == "\n" for char in text)
    assert max(map(len, text.splitlines())) <= width
    assert json.loads(report_json(report))["ranks_overview"]["outliers"][0]["rank"] == 2


def test_json_has_every_rank_and_keeps_the_contract() -> None:
    report = run(20)
    document = json.loads(report_json(report))
    check_report(document)
    found = document["ranks_overview"]
    assert [row["rank"] for row in found["ranks"]] == list(range(20))
    assert [row["peak_bytes"] for row in found["ranks"]] == [one.peak.requested_bytes for one in report.ranks]
    assert found["savings"][0]["zero_3_bytes"] == report.ranks_overview.savings[0].zero_3_bytes  # type: ignore[union-attr]
    assert found["highest"]["rank"] == 19
    assert json.loads(report_json(replace(report, ranks_overview=None)))["ranks_overview"] is None


def test_facts_of_a_rank_are_columns_of_one_length() -> None:
    facts = run(2).ranks[0].rank_facts
    assert isinstance(facts, RankFacts)
    columns = (facts.dtypes, facts.shapes, facts.global_shapes, facts.placements, facts.parameter_bytes)
    assert {len(one) for one in (*columns, facts.gradient_bytes, facts.row_state_bytes, facts.other_state_bytes)} == {2}
    assert list(facts.names) == sorted(facts.names)
