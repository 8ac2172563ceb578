"""The page of a report in a browser: opened from disk, silent, offline, and showing the numbers of the results."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest

from memtrace.report.drawing.palette import THEMES, category_ink
from memtrace.report.page.assets import viewer_text
from memtrace.units import format_bytes, format_ns
from tests.browser.opened import Opened, OpenReport
from tests.fake_report import gpt_report, hostile_report, ranks_report

if TYPE_CHECKING:
    from playwright.sync_api import Browser

pytestmark = pytest.mark.browser


def point_at(opened: Opened, place: float) -> None:
    """Move the pointer over a place of the timeline's horizontal axis."""
    opened.page.locator("#timeline-plot").scroll_into_view_if_needed()
    left, top = opened.page.evaluate(
        """place => {
            const plot = document.getElementById("timeline-plot");
            const { xaxis, yaxis } = plot._fullLayout;
            const box = plot.getBoundingClientRect();
            return [box.left + xaxis._offset + xaxis.d2p(place), box.top + yaxis._offset + yaxis._length / 2];
        }""",
        place,
    )
    opened.page.mouse.move(left, top)
    opened.page.wait_for_selector(".reading:not([hidden])")


def test_the_page_leads_with_verdict_and_peak(open_report: OpenReport) -> None:
    report = gpt_report()
    opened = open_report(report)
    rank = report.ranks[0]
    assert opened.text("#verdict") == report.verdict
    assert opened.text("[data-card=peak] .card-value") == format_bytes(rank.peak.allocated_bytes)
    assert opened.text("[data-card=reserved] .card-value") == format_bytes(rank.max_reserved_bytes)
    assert "step 2 · backward" in opened.text("[data-card=peak]")
    assert all(note.message.replace("`", "") in opened.text("#not-seen") for note in rank.warnings)


def test_the_breakdown_shows_the_bytes_of_the_peak(open_report: OpenReport) -> None:
    report = gpt_report()
    opened = open_report(report)
    for category, num_bytes in report.ranks[0].peak.by_category.items():
        cells = opened.texts(f"[data-category={category}] > *")
        assert cells[0] == category_ink(category).label
        assert cells[1] == format_bytes(num_bytes)
    assert opened.texts("[data-category=unknown] em") == ["unattributed"]


def test_tables_show_modules_stacks_and_steps(open_report: OpenReport) -> None:
    report = gpt_report()
    rank = report.ranks[0]
    opened = open_report(report, view="peak")
    for row in rank.top_modules[:10]:
        name = row.module or "outside any module"
        assert opened.texts(f'[data-module="{name}"] td.strong') == [format_bytes(row.num_bytes)]
    assert opened.texts("#stack-table td.strong") == [format_bytes(row.num_bytes) for row in rank.top_stacks]
    opened.go("steps")
    recorded = [step for step in rank.steps if step.recorded]
    assert opened.texts("#step-table td.strong") == [format_bytes(step.peak_allocated_bytes) for step in recorded]
    assert opened.page.locator("tr.unrecorded").count() == 1


def test_a_stack_opens_to_all_its_frames(open_report: OpenReport) -> None:
    report = gpt_report()
    opened = open_report(report, view="peak")
    opened.page.locator("[data-stack='0'] summary").click()
    assert tuple(opened.texts("[data-stack='0'] li")) == report.ranks[0].top_stacks[0].frames


def test_all_modules_are_shown_on_demand(open_report: OpenReport) -> None:
    opened = open_report(gpt_report(), view="peak")
    shown = opened.page.locator("#module-table tbody tr:visible")
    assert shown.count() == 10
    opened.page.get_by_text("Show all 63 modules").click()
    assert shown.count() == 63


@pytest.mark.parametrize("row", [5, 200, 413, 700])
def test_the_pointer_reads_the_bytes_of_that_moment(open_report: OpenReport, row: int) -> None:
    report = gpt_report()
    timeline = report.ranks[0].timeline
    assert timeline is not None
    opened = open_report(report, view="timeline")
    opened.page.get_by_role("button", name="events").click()
    opened.page.evaluate(
        "row => Plotly.relayout('timeline-plot', {'xaxis.range': [row - 10, row + 10]})", int(timeline.event[row])
    )
    point_at(opened, int(timeline.event[row]) + 0.5)
    read = {
        line.get_attribute("data-label"): line.locator("td.number").inner_text()
        for line in opened.page.locator(".reading tr").all()
    }
    values = {category_ink(name).label: int(column[row]) for name, column in timeline.by_category.items()}
    assert timeline.reserved_bytes is not None
    expected = {label: format_bytes(value) for label, value in values.items() if value}
    expected |= {"allocated": format_bytes(int(timeline.requested_bytes[row]))}
    expected |= {"reserved": format_bytes(int(timeline.reserved_bytes[row]))}
    assert read == expected


def test_the_pointer_says_that_a_gap_was_not_recorded(open_report: OpenReport) -> None:
    report = gpt_report()
    timeline = report.ranks[0].timeline
    assert timeline is not None
    opened = open_report(report, view="timeline")
    middle = (sum(timeline.gaps[0]) / 2 - int(timeline.time_ns[0])) / 1e9
    point_at(opened, middle)
    assert "not recorded here" in opened.text(".reading")
    assert "not recorded" in opened.text("#timeline-plot")


def test_the_axis_changes_by_button_and_by_key(open_report: OpenReport) -> None:
    opened = open_report(gpt_report(), view="timeline")
    assert "seconds since the first event" in opened.text("#timeline-plot")
    opened.page.keyboard.press("a")
    opened.page.get_by_text("allocator events").wait_for()
    opened.page.get_by_role("button", name="wall clock").click()
    opened.page.get_by_text("seconds since the first event").wait_for()


def test_dragging_zooms_and_the_key_resets(open_report: OpenReport) -> None:
    opened = open_report(gpt_report(), view="timeline")
    ranges = "document.getElementById('timeline-plot')._fullLayout.xaxis.range"
    whole = opened.page.evaluate(ranges)
    opened.page.locator("#timeline-plot").scroll_into_view_if_needed()
    box = opened.page.locator("#timeline-plot").bounding_box()
    assert box is not None
    opened.page.mouse.move(box["x"] + 300, box["y"] + 150)
    opened.page.mouse.down()
    opened.page.mouse.move(box["x"] + 500, box["y"] + 150, steps=4)
    opened.page.mouse.up()
    opened.until(f"whole => {ranges}[1] < whole[1]", whole)
    zoomed = opened.page.evaluate(ranges)
    assert "span=" in opened.page.url
    opened.page.reload()
    opened.wait()
    assert opened.page.evaluate(ranges) == pytest.approx(zoomed)
    opened.page.keyboard.press("0")
    opened.until(f"whole => {ranges}[1] === whole[1]", whole)


def test_a_category_can_be_hidden(open_report: OpenReport) -> None:
    opened = open_report(gpt_report(), view="timeline")
    visible = "document.getElementById('timeline-plot').data.find(trace => trace.meta === 'activation').visible"
    opened.page.locator("#timeline").get_by_role("button", name="activations").click()
    opened.until(f"{visible} === false")


def test_ranks_are_shown_one_at_a_time(open_report: OpenReport) -> None:
    report = ranks_report(4)
    opened = open_report(report)
    peak = "[data-card=peak] .card-value"
    for index in (1, 2):
        opened.page.select_option("#rank-select", str(index))
        assert opened.text(peak) == format_bytes(report.ranks[index].peak.allocated_bytes)
    opened.page.locator("#rank-strip .rank-cell").nth(1).click()
    assert opened.text("[data-card=completeness] .card-value") == "incomplete"
    assert "Out of memory in step 500" in opened.text(".oom")
    opened.page.keyboard.press("[")
    assert opened.text(peak) == format_bytes(report.ranks[0].peak.allocated_bytes)
    assert report.warnings[0].message in opened.text("#not-seen")


def test_a_snapshot_without_history_says_so(open_report: OpenReport) -> None:
    report = ranks_report(4)
    opened = open_report(report)
    opened.page.select_option("#rank-select", "3")
    assert opened.text("[data-card=first-step-peak] .card-value") == "not recorded"
    opened.go("timeline")
    assert "This trace has no history" in opened.text("#timeline")
    assert opened.page.locator("#timeline-plot").count() == 0


def test_hostile_names_are_text(open_report: OpenReport) -> None:
    opened = open_report(hostile_report())
    assert opened.text("#verdict").startswith("</script><script>alert(1)</script> <img src=x onerror=alert(2)>")
    assert opened.page.locator("img[src=x]").count() == 0
    # Payload, worker, plotly and the modules; nothing that a name brought in.
    assert opened.page.evaluate("document.querySelectorAll('script').length") == 4
    body = opened.text("main")
    assert "\\x1b[31mred" in body
    assert "\x1b" not in body
    opened.go("peak")
    assert opened.page.locator("#module-plot").get_by_text("<b>bold</b>").count() > 0
    opened.page.keyboard.press("]")
    opened.go("recording")
    assert "<img src=x onerror=alert(2)>" in opened.text("#facts")


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_page_follows_the_system_theme_and_the_key_changes_it(open_report: OpenReport, theme: str) -> None:
    opened = open_report(gpt_report(), view="timeline", color_scheme=theme)
    other = "dark" if theme == "light" else "light"
    background = "getComputedStyle(document.documentElement).getPropertyValue('--page').trim()"
    ink = "document.getElementById('timeline-plot')._fullLayout.font.color"
    assert opened.page.evaluate(background) == THEMES[theme]["page"]
    assert opened.page.evaluate(ink) == THEMES[theme]["ink"]
    opened.page.keyboard.press("t")
    opened.until(f"{ink} === {THEMES[other]['ink']!r}")
    assert opened.page.evaluate(background) == THEMES[other]["page"]


def test_question_mark_shows_the_keys(open_report: OpenReport) -> None:
    opened = open_report(gpt_report())
    opened.page.keyboard.press("?")
    assert "light or dark" in opened.text("#help")
    opened.page.keyboard.press("Escape")
    assert not opened.page.locator("#help").is_visible()


@pytest.mark.parametrize("view", ["overview", "timeline", "peak", "steps", "recording"])
def test_nothing_is_wider_than_the_window(open_report: OpenReport, view: str) -> None:
    opened = open_report(gpt_report(), view=view)
    assert opened.page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_a_page_prints(open_report: OpenReport) -> None:
    opened = open_report(gpt_report(), color_scheme="dark")
    assert opened.page.pdf(format="A4").startswith(b"%PDF")


def test_bytes_and_durations_are_written_as_python_writes_them(browser: Browser) -> None:
    drawn = random.Random(7)
    numbers = [0, 1, 999, 1000, 1023, 1024, 1152, 1408, 10_235, 10_240, 1_048_063, 1_048_064, 2**40, 2**53 - 1]
    numbers += [128 * odd for odd in range(1, 400)]
    numbers += [int(2 ** drawn.uniform(0, 53)) for _ in range(5000)]
    numbers += [-number for number in numbers]
    page = browser.new_page()
    script = "([source, numbers]) => import('data:text/javascript,' + encodeURIComponent(source))"
    written = page.evaluate(
        f"{script}.then((module) => numbers.map(module.formatBytes))", [viewer_text("js/format.js"), numbers]
    )
    assert written == [format_bytes(number) for number in numbers]
    durations = [
        0,
        999,
        1000,
        1125,
        1375,
        9_994,
        9_995,
        99_949,
        99_950,
        999_499,
        999_500,
        10**9,
        59_999_999_999,
        60 * 10**9,
    ]
    durations += [125 * odd for odd in range(1, 1000)] + [90_500_000_000, 119_500_000_000, 3600 * 10**9]
    durations += [int(2 ** drawn.uniform(0, 45)) for _ in range(5000)]
    told = page.evaluate(
        f"{script}.then((module) => numbers.map(module.formatNs))", [viewer_text("js/format.js"), durations]
    )
    page.close()
    assert told == [format_ns(number) for number in durations]
