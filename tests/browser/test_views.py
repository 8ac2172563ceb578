"""The views at a chosen moment: the bytes of Python's results for it, links that come back, keys, no markup."""

from __future__ import annotations

import csv
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from memtrace.analysis.results.report import AllocationMap, Report
from memtrace.report.drawing.palette import category_ink
from memtrace.units import format_bytes
from tests.browser.charts import position_of
from tests.browser.map_runs import HOSTILE_NAME, device_report, host_report, map_of
from tests.browser.opened import OpenReport
from tests.fake_report import finding, gpt_report

pytestmark = pytest.mark.browser

VIEWS = ("overview", "timeline", "map", "peak", "segments", "steps", "recording")


def live_at(found: AllocationMap, moment: int) -> list[int]:
    """Return the rows in use at a moment."""
    return [int(row) for row in np.flatnonzero((found.start <= moment) & (found.in_use_end > moment))]


def test_keys_go_through_the_views_and_none_complains(open_report: OpenReport) -> None:
    opened = open_report(host_report())
    for number, view in enumerate(VIEWS, start=1):
        opened.page.keyboard.press(str(number))
        opened.wait()
        assert opened.page.locator(f"nav.views [data-view={view}][aria-current=page]").count() == 1
        assert opened.page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        assert opened.page.locator("img").count() == 0


@pytest.mark.parametrize("make", [host_report, device_report])
def test_the_peak_view_adds_up_to_the_peak(open_report: OpenReport, make: object) -> None:
    report: Report = make()  # type: ignore[operator]
    peak, found = report.ranks[0].peak, map_of(report)
    opened = open_report(report, view="peak")
    rows = live_at(found, found.peaks["peak"])
    assert f"{format_bytes(peak.requested_bytes)} in use, {len(rows)} allocations" in opened.text("#peak-figure .lead")
    by_category: Counter[str] = Counter()
    for row in opened.page.locator("#live-table tbody tr").all():
        by_category[row.locator("th").inner_text()] += int(row.get_attribute("data-bytes") or 0)
    base = int(found.base_bytes[0])
    expected = Counter({category_ink(name).label: num for name, num in peak.by_category.items() if num})
    expected["unattributed"] -= base
    assert by_category == +expected


@pytest.mark.parametrize("make", [host_report, device_report])
def test_stacks_at_the_peak_are_those_of_the_report(open_report: OpenReport, make: object) -> None:
    report: Report = make()  # type: ignore[operator]
    opened = open_report(report, hash="#view=peak&by=stack")
    shown = [int(row.get_attribute("data-bytes") or 0) for row in opened.page.locator("#live-table tbody tr").all()]
    base = int(map_of(report).base_bytes[0])
    expected = [row.num_bytes - (0 if row.frames else base) for row in report.ranks[0].top_stacks]
    assert sorted(shown) == sorted(one for one in expected if one)


def test_tables_are_saved_as_csv(open_report: OpenReport) -> None:
    report = host_report()
    found = map_of(report)
    opened = open_report(report, view="peak")
    with opened.page.expect_download() as download:
        opened.page.get_by_role("button", name="Save CSV").click()
    rows = list(csv.reader(download.value.path().read_text(encoding="utf-8").splitlines()))
    assert rows[0] == ["category", "module", "operation", "bytes", "allocations"]
    live = live_at(found, found.peaks["peak"])
    assert sum(int(row[3]) for row in rows[1:]) == int(found.size_bytes[live].sum())
    assert sum(int(row[4]) for row in rows[1:]) == len(live)


@pytest.mark.parametrize("moment", [3, 9, 15])
def test_a_chosen_moment_is_shown_and_linked_to(open_report: OpenReport, moment: int) -> None:
    report = host_report()
    found = map_of(report)
    opened = open_report(report, hash=f"#view=peak&at=moment&moment={moment}&by=stack")
    rows = live_at(found, moment)
    total = int(found.size_bytes[rows].sum() + found.base_bytes[0])
    assert f"{format_bytes(total)} in use, {len(rows)} allocations" in opened.text("#peak-figure .lead")
    assert f"moment {moment}" in opened.text("#moment-text")
    opened.page.get_by_role("button", name="survivors at the end").click()
    survivors = live_at(found, found.num_moments - 1)
    assert f"{len(survivors)} allocations" in opened.text("#peak-figure .lead")
    assert "at=end" in opened.page.url
    opened.page.reload()
    opened.wait()
    assert f"{len(survivors)} allocations" in opened.text("#peak-figure .lead")


@pytest.mark.parametrize("moment", [40, 200, 350])
def test_segments_are_what_the_allocator_held(open_report: OpenReport, moment: int) -> None:
    report = device_report()
    found = map_of(report)
    segments = found.segments
    opened = open_report(report, hash=f"#view=segments&at=moment&moment={moment}")
    there = (segments.start <= moment) & (segments.end > moment)
    assert found.block_bytes is not None
    taken = (found.start <= moment) & (found.end > moment)
    reserved, active = int(segments.size_bytes[there].sum()), int(found.block_bytes[taken].sum())
    stats = {
        stat.get_attribute("data-stat"): stat.locator("dd").inner_text()
        for stat in opened.page.locator("#segment-stats [data-stat]").all()
    }
    assert stats["segments"] == str(np.count_nonzero(there))
    assert stats["reserved"] == format_bytes(reserved)
    assert stats["in blocks"] == format_bytes(active)
    assert stats["free"] == format_bytes(reserved - active)


def test_segments_play_and_stop(open_report: OpenReport) -> None:
    opened = open_report(device_report(), view="segments")
    before = opened.text("#moment-text")
    opened.page.keyboard.press(" ")
    opened.until("before => document.getElementById('moment-text').textContent !== before", before)
    opened.page.keyboard.press(" ")
    assert opened.text("#play") == "▶ Play"


def test_the_cpu_has_no_segments_and_the_page_says_so(open_report: OpenReport) -> None:
    assert "keeps no segments" in open_report(host_report(), view="segments").text("#segments")


def test_a_click_on_the_timeline_shows_that_moment_below(open_report: OpenReport) -> None:
    report = host_report()
    found = map_of(report)
    opened = open_report(report, hash="#view=timeline&axis=event")
    row = 20
    opened.page.mouse.click(*position_of(opened, row + 1.4))
    opened.page.wait_for_selector("#moment-table")
    moment = int(np.flatnonzero(found.event == row)[0])
    rows = live_at(found, moment)
    total = int(found.size_bytes[rows].sum() + found.base_bytes[0])
    assert opened.text("#moment-section h2") == f"{format_bytes(total)} in use then"
    sizes = sorted((int(found.size_bytes[one]) for one in rows), reverse=True)
    assert opened.texts("#moment-table td.strong") == [format_bytes(size) for size in sizes[:12]]
    assert f"moment={moment}" in opened.page.url


def test_hostile_names_are_text_in_every_view(open_report: OpenReport) -> None:
    opened = open_report(host_report(), view="peak")
    assert HOSTILE_NAME in opened.text("#live-table")
    opened.go("map")
    opened.page.fill("#map-search", HOSTILE_NAME)
    assert opened.page.locator("img").count() == 0
    assert opened.page.locator("#map-found").inner_text()[0] != "0"


@pytest.mark.parametrize("hash", ["#view=nowhere&rank=99&row=9999999", "#camera=1,NaN,0,0&moment=-3&axis=<b>", "#%"])
def test_a_damaged_link_shows_a_page(open_report: OpenReport, hash: str) -> None:
    opened = open_report(device_report(), hash=hash)
    opened.go("map")
    opened.go("peak")
    assert opened.page.locator("#live-table").count() == 1


def test_a_rank_without_a_map_says_so(open_report: OpenReport) -> None:
    assert "Nothing is known of any allocation" in open_report(gpt_report(), view="map").text("#map")


def test_steps_compare_the_first_with_the_steady_state(open_report: OpenReport) -> None:
    report = gpt_report()
    rank = report.ranks[0]
    opened = open_report(report, view="steps")
    assert rank.first_step_peak is not None
    assert rank.steady_state_peak is not None
    for name, after in rank.steady_state_peak.by_category.items():
        before = rank.first_step_peak.by_category.get(name, 0)
        cells = opened.texts(f"#change-table [data-change={name}] td")
        assert cells[:2] == [format_bytes(before), format_bytes(after)]
        assert cells[2].lstrip("+-") == (format_bytes(abs(after - before)) if after != before else "same")


def test_the_summary_can_be_copied(open_report: OpenReport) -> None:
    report = host_report()
    opened = open_report(report, permissions=["clipboard-read", "clipboard-write"])
    opened.page.keyboard.press("c")
    opened.page.wait_for_timeout(200)
    text = opened.page.evaluate("navigator.clipboard.readText()")
    assert text.startswith(report.verdict)
    assert format_bytes(report.ranks[0].peak.requested_bytes) in text


def test_advice_leads_to_its_allocations_on_the_map(open_report: OpenReport) -> None:
    place = {"file": "/home/me/model.py", "line": 9, "function": "attend"}
    report = replace(device_report(), findings=(replace(finding(), where=place),))
    opened = open_report(report)
    opened.page.get_by_role("link", name="on the map").click()
    opened.page.wait_for_selector("html[data-map=ready]")
    found = map_of(report)
    frame = found.frames.index("/home/me/model.py:9 attend")
    stacks = set()
    for stack in range(len(found.stack_frame)):
        at = stack
        while at >= 0 and found.stack_frame[at] != frame:
            at = int(found.stack_parent[at])
        if at >= 0:
            stacks.add(stack)
    number = sum(int(one) in stacks for one in found.stack)
    assert number > 0
    assert opened.text("#map-found").startswith(f"{number} found")
