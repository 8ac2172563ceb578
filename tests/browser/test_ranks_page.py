"""Many ranks on one page in a browser: cells and small timelines to choose from by pointer and key."""

from __future__ import annotations

from dataclasses import replace

import pytest

from memtrace.analysis.results.ranks import Difference, Outlier, RanksResult, Scheme, Spread
from memtrace.analysis.results.report import Report
from memtrace.report.page.data import payload
from memtrace.units import format_bytes
from tests.browser.opened import Opened, OpenReport
from tests.fake_report import GIB, HOSTILE, MIB, gpt_rank, ranks_report

pytestmark = pytest.mark.browser

PEAK = "[data-card=peak] .card-value"


def compared(report: Report) -> Report:
    """Return a report whose ranks were compared: rank 2 stands out, ranks 4 to 6 are missing."""
    outlier = Outlier(
        rank=2,
        median_rank=1,
        peak_bytes=10 * GIB,
        median_bytes=9 * GIB,
        excess_bytes=GIB,
        excess_pct=11.1,
        by_category=(Difference(name="communication", num_bytes=2 * GIB, median_bytes=GIB),),
        by_module=(),
        by_parameters=(),
        facts=(f"It runs on host {HOSTILE[1]}.",),
    )
    spread = Spread(
        name="optimizer_state", min_bytes=1, min_rank=0, median_bytes=2 * MIB, max_bytes=3 * GIB, max_rank=2
    )
    result = RanksResult(
        world_size=7,
        ranks=(),
        num_missing=3,
        missing=(4, 5, 6),
        failed=(1,),
        behind=(0,),
        spreads=(spread,),
        highest=None,
        outliers=(outlier,),
        schemes=(Scheme(kind="ddp", name="DDP", stage=None, factor=4, how=HOSTILE[0], inferred=True),),
        copies=4,
        savings=(),
        savings_inferred=False,
    )
    return replace(report, ranks_overview=result)


def cell(opened: Opened, name: str, group: str = "#rank-strip") -> object:
    """Return the class names of a rank's cell."""
    return opened.page.locator(f"{group} [data-rank='{name}']").get_attribute("class")


def test_the_strip_tells_who_failed_stands_out_or_is_missing(open_report: OpenReport) -> None:
    opened = open_report(compared(ranks_report(4)))
    assert cell(opened, "0") == "rank-cell "
    assert cell(opened, "1") == "rank-cell failed"
    assert cell(opened, "2") == "rank-cell outlier"
    assert opened.text("#rank-strip [data-missing]") == "3 missing"
    title = opened.page.locator("#rank-strip [data-rank='1']").get_attribute("title") or ""
    assert "out of memory in step 500" in title
    names = opened.page.evaluate(
        "[...document.querySelectorAll('#rank-strip .rank-cell')].map((one) => one.dataset.rank ?? one.dataset.missing)"
    )
    assert names == ["0", "1", "2", "3", "4–6"]


def test_a_small_timeline_chooses_its_rank_for_every_view(open_report: OpenReport) -> None:
    report = compared(ranks_report(4))
    opened = open_report(report, view="ranks")
    opened.page.locator("#rank-minis [data-rank='2']").click()
    opened.wait()
    assert "rank=2" in opened.page.url
    assert opened.page.locator("#rank-minis [aria-pressed=true]").get_attribute("data-rank") == "2"
    opened.go("overview")
    assert opened.text(PEAK) == format_bytes(report.ranks[2].peak.allocated_bytes)


def test_keys_go_from_rank_to_rank_and_choose_one(open_report: OpenReport) -> None:
    report = ranks_report(4)
    opened = open_report(report)
    assert opened.page.locator("#rank-strip [tabindex='0']").count() == 1
    opened.page.locator("#rank-strip [tabindex='0']").focus()
    for key in ("ArrowRight", "ArrowRight", "ArrowLeft", "End", "Home", "ArrowRight", "ArrowRight"):
        opened.page.keyboard.press(key)
    opened.page.keyboard.press("Enter")
    opened.until("() => document.querySelector('#rank-strip [aria-pressed=true]').dataset.rank === '2'")
    opened.until("() => document.activeElement.dataset.rank === '2'")
    assert opened.text(PEAK) == format_bytes(report.ranks[2].peak.allocated_bytes)


def test_levels_are_drawn_as_high_as_they_are(open_report: OpenReport) -> None:
    report = ranks_report(4)
    opened = open_report(report, view="ranks")
    shape = opened.page.locator("#rank-minis [data-rank='0'] .mini-level").evaluate("one => one.style.clipPath")
    heights = [100 - float(point.split()[1].rstrip("%")) for point in shape[len("polygon(") : -1].split(",")]
    timelines = [rank.timeline for rank in report.ranks if rank.timeline is not None]
    tops = [int(one.allocated_bytes.max()) for one in timelines if one.allocated_bytes is not None]
    assert max(heights) == pytest.approx(100 * tops[0] / max(tops), abs=0.01)
    assert opened.text("#rank-minis [data-rank='3']").endswith("no history")


def test_the_table_of_ranks_and_what_differs(open_report: OpenReport) -> None:
    report = compared(ranks_report(4))
    opened = open_report(report, view="ranks")
    for rank in report.ranks:
        assert opened.text(f"[data-row='{rank.rank}'] .strong") == format_bytes(rank.peak.allocated_bytes)
    assert "optimizer state" in opened.text("#spread-table")
    assert "Rank 2: 10.0 GiB, 1.00 GiB more than rank 1 in the middle" in opened.text(".outliers")
    assert "DDP (inferred)" in opened.text("#rank-differences")
    assert "2.00 GiB instead of 1.00 GiB" in opened.text(".outliers")
    assert opened.text("#rank-table .unrecorded").endswith("ranks 4–6: no trace")
    opened.page.locator("[data-row='1'] button").click()
    assert "rank=1" in opened.page.url


def test_hostile_hosts_and_facts_are_text(open_report: OpenReport) -> None:
    report = compared(ranks_report(4))
    ranks = tuple(replace(rank, facts={"host": HOSTILE[index]}) for index, rank in enumerate(report.ranks))
    opened = open_report(replace(report, ranks=ranks), view="ranks")
    assert opened.page.locator("img").count() == 0
    assert opened.page.evaluate("document.querySelectorAll('script').length") == 3
    text = opened.text("main")
    assert HOSTILE[1] in text
    assert HOSTILE[0] in text
    assert "\x1b" not in text


def test_devices_of_one_process_are_called_so(open_report: OpenReport) -> None:
    devices = tuple(gpt_rank(device=name) for name in ("cuda:0", "cpu"))
    opened = open_report(replace(ranks_report(2), ranks=devices))
    assert opened.text(".ranks label") == "2 devices"
    assert opened.text("[data-view=ranks]") == "Devices"


def test_512_ranks_fit_and_say_where_the_rest_is(open_report: OpenReport, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(payload, "MAX_DETAIL_CHARS", 400_000)
    first = gpt_rank(0)
    report = replace(ranks_report(2), ranks=tuple(replace(first, rank=number) for number in range(512)), main_rank=7)
    opened = open_report(report, hash="#view=ranks&rank=300", viewport={"width": 420, "height": 800})
    assert opened.page.locator("#rank-strip .rank-cell").count() == 512
    assert opened.page.locator("#rank-minis .mini-level").count() == 512
    assert opened.page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    opened.go("timeline")
    assert "memtrace report rank-00300.json.gz --html rank-300.html" in opened.text("#left-out")
    opened.page.locator("#rank-strip [data-rank='7']").click()
    opened.wait()
    assert opened.page.locator("#timeline-surface").is_visible()
