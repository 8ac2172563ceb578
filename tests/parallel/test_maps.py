"""Of a large run, the ranks that matter most travel with every allocation."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from memtrace.analysis.results.report import Report
from memtrace.parallel import maps, run
from memtrace.parallel.maps import files_with_maps
from memtrace.parallel.run import report_of
from memtrace.report.json.report import report_document
from memtrace.report.page.report import render_html
from tests.parallel.conftest import NUM_RANKS


@pytest.fixture
def only_three(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes twelve ranks many."""
    monkeypatch.setattr(run, "MAX_FILES", 3)
    monkeypatch.setattr(maps, "MAX_FILES", 3)


@pytest.fixture(scope="module")
def plain(ranks: Path) -> Report:
    """The report without maps."""
    return report_of([ranks])


def with_maps(report: Report) -> list[int | None]:
    return [rank.rank for rank in report.ranks if rank.allocation_map is not None]


@pytest.mark.usefixtures("only_three")
def test_three_of_twelve_ranks_have_maps_and_the_rest_says_so(ranks: Path, plain: Report) -> None:
    report = report_of([ranks], with_map=True)
    assert report.main_rank is not None
    main = report.ranks[report.main_rank].rank
    shown = with_maps(report)
    assert len(shown) == 3
    assert main in shown
    assert [rank.rank for rank in report.ranks if rank.map_left_out] == [
        rank for rank in range(NUM_RANKS) if rank not in shown
    ]
    (note,) = [one for one in report.warnings if one.slug == "maps-left-out"]
    assert note.count == NUM_RANKS - 3
    assert ", ".join(map(str, shown)) in note.message
    documents = [report_document(one) for one in (plain, report)]
    del documents[0]["warnings"], documents[1]["warnings"]
    assert documents[0] == documents[1]
    page = render_html(report)
    assert page.count('<script type="text/plain" id="map-') == 3
    assert "Nothing is known of any allocation" not in page


def test_all_maps_of_few_ranks_are_there(ranks: Path) -> None:
    report = report_of([ranks], with_map=True)
    assert with_maps(report) == list(range(NUM_RANKS))
    assert [one.slug for one in report.warnings] == []


@pytest.mark.usefixtures("only_three")
def test_ranks_that_findings_are_about_come_after_the_main_one(plain: Report) -> None:
    findings = tuple(dataclasses.replace(plain.findings[0], rank=rank) for rank in (None, 9, 4, 9, 6))
    report = dataclasses.replace(plain, findings=findings, main_rank=11)
    assert files_with_maps(report, of_report(report)) == [4, 9, 11]


def of_report(report: Report) -> dict[int, list[maps.RankAnalysis]]:
    """Return the devices of a report as if each had come from a file of its own."""
    return {
        at: [
            maps.RankAnalysis(
                rank=device.rank,
                source=device.source,
                complete=True,
                num_events=device.num_events,
                header={},
                devices=(device,),
                findings=(),
            )
        ]
        for at, device in enumerate(report.ranks)
    }


def test_maps_of_long_histories_are_fewer(plain: Report, monkeypatch: pytest.MonkeyPatch) -> None:
    report = dataclasses.replace(plain, findings=(), main_rank=5)
    files = of_report(report)
    num_events = {at: report.ranks[at].num_events for at in files}
    monkeypatch.setattr(maps, "MAX_EVENTS", num_events[5] + num_events[0])
    assert files_with_maps(report, files) == [0, 5]
    monkeypatch.setattr(maps, "MAX_EVENTS", 1)
    assert files_with_maps(report, files) == [5], "the main rank in any case"
