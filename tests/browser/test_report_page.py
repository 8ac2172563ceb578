"""The page of a report in a browser: opened from disk, silent, offline, and showing the numbers of the results."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest

from memtrace.report.drawing.palette import THEMES, category_ink
from memtrace.report.page.assets import viewer_text
from memtrace.units import format_bytes, format_ns
from tests.browser.charts import point_at, position_of, readings
from tests.browser.opened import OpenReport
from tests.fake_report import gpt_report, hostile_report, ranks_report

if TYPE_CHECKING:
    from playwright.sync_api import Browser

pytestmark = pytest.mark.browser


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
    place = int(timeline.event[row])
    opened.page.evaluate(
        "([x0, x1]) => memtrace.timeline.moveTo({ ...memtrace.timeline.camera(), x0, x1 })", [place - 10, place + 10]
    )
    point_at(opened, place + 0.5)
    values = {category_ink(name).label: int(column[row]) for name, column in timeline.by_category.items()}
    assert timeline.reserved_bytes is not None
    expected = {label: format_bytes(value) for label, value in values.items() if value}
    expected |= {"in use": format_bytes(int(timeline.requested_bytes[row]))}
    expected |= {"reserved": format_bytes(int(timeline.reserved_bytes[row]))}
    assert readings(opened) == expected


def test_the_pointer_says_that_a_gap_was_not_recorded(open_report: OpenReport) -> None:
    report = gpt_report()
    timeline = report.ranks[0].timeline
    assert timeline is not None
    opened = open_report(report, view="timeline")
    (fold,) = opened.page.evaluate("memtrace.timeline.data.folds")
    first = int(timeline.time_ns.searchsorted(timeline.gaps[0][0], side="right"))
    start, end = ((int(timeline.time_ns[at]) - int(timeline.time_ns[0])) / 1e9 for at in (first - 1, first))
    assert [fold["start"], fold["end"]] == pytest.approx([start, end])
    # However long it was, a gap takes little of the axis.
    whole = opened.page.evaluate("memtrace.timeline.camera()")
    assert fold["to"] - fold["from"] < 0.05 * (whole["x1"] - whole["x0"]) < end - start
    point_at(opened, (fold["from"] + fold["to"]) / 2)
    assert opened.text(".reading") == f"{format_ns(timeline.gaps[0][1] - timeline.gaps[0][0])} not recorded"


def test_the_axis_changes_by_button_and_by_key(open_report: OpenReport) -> None:
    report = gpt_report()
    timeline = report.ranks[0].timeline
    assert timeline is not None
    opened = open_report(report, view="timeline")
    by_clock = opened.page.evaluate("memtrace.timeline.camera()")
    opened.page.keyboard.press("x")
    by_event = opened.page.evaluate("memtrace.timeline.camera()")
    assert [by_event["x0"], by_event["x1"]] == [timeline.event[0], timeline.event[-1] + 1]
    opened.page.get_by_role("button", name="wall clock").click()
    assert opened.page.evaluate("memtrace.timeline.camera()") == by_clock


def test_wheel_and_keys_zoom_and_the_link_keeps_it(open_report: OpenReport) -> None:
    opened = open_report(gpt_report(), view="timeline")
    camera = "memtrace.timeline.camera()"
    whole = opened.page.evaluate(camera)
    opened.page.mouse.move(*position_of(opened, whole["x1"] * 0.4))
    opened.page.mouse.wheel(0, -300)
    opened.page.keyboard.press("w")
    opened.page.keyboard.press("d")
    opened.until(f"whole => {camera}.x1 - {camera}.x0 < (whole.x1 - whole.x0) * 0.5", whole)
    opened.until("location.hash.includes('camera')")
    zoomed = opened.page.evaluate(camera)
    opened.page.reload()
    opened.wait()
    assert opened.page.evaluate(camera) == pytest.approx(zoomed)
    opened.page.keyboard.press("s")
    opened.page.keyboard.press("a")
    opened.page.keyboard.press("0")
    opened.until(f"whole => {camera}.x1 === whole.x1 && {camera}.x0 === whole.x0", whole)


def test_a_selected_box_is_summed_by_category(open_report: OpenReport) -> None:
    report = gpt_report()
    timeline = report.ranks[0].timeline
    assert timeline is not None
    opened = open_report(report, hash="#view=timeline&axis=event")
    (left, top), (right, _) = position_of(opened, 100.0), position_of(opened, 300.0)
    opened.page.mouse.move(left, top - 60)
    opened.page.keyboard.down("Shift")
    opened.page.mouse.down()
    opened.page.mouse.move(right, top + 40, steps=3)
    opened.page.mouse.up()
    opened.page.keyboard.up("Shift")
    rows = range(100, 300)
    highest = max(rows, key=lambda row: (int(timeline.requested_bytes[row]), -row))
    for name, column in timeline.by_category.items():
        if column[highest]:
            assert opened.texts(f"#selection-table [data-selected={name}] td") == [format_bytes(int(column[highest]))]
    total = format_bytes(int(timeline.requested_bytes[highest]))
    assert opened.texts("#selection-table [data-selected=total] td") == [total]
    opened.page.get_by_role("button", name="Zoom to it").click()
    opened.until("memtrace.timeline.camera().x1 < 301 && memtrace.timeline.camera().x0 > 99")
    assert not opened.page.locator("#timeline-selection").is_visible()


def test_a_category_can_be_hidden(open_report: OpenReport) -> None:
    opened = open_report(gpt_report(), view="timeline")
    drawn = "[...new Set(memtrace.timeline.drawn.ids)].length"
    before = opened.page.evaluate(drawn)
    opened.page.locator("#timeline").get_by_role("button", name="activations").click()
    assert opened.page.evaluate(drawn) == before - 1


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
    assert opened.page.locator("#timeline-surface").count() == 0


def test_hostile_names_are_text(open_report: OpenReport) -> None:
    opened = open_report(hostile_report())
    assert opened.text("#verdict").startswith("</script><script>alert(1)</script> <img src=x onerror=alert(2)>")
    assert opened.page.locator("img[src=x]").count() == 0
    # Payload, worker and the modules; nothing that a name brought in.
    assert opened.page.evaluate("document.querySelectorAll('script').length") == 3
    body = opened.text("main")
    assert "\\x1b[31mred" in body
    assert "\x1b" not in body
    opened.go("peak")
    assert opened.page.locator("#modules .icicle").get_by_text("<b>bold</b>").count() > 0
    opened.page.keyboard.press("]")
    opened.go("recording")
    assert "<img src=x onerror=alert(2)>" in opened.text("#facts")


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_page_follows_the_system_theme_and_the_key_changes_it(open_report: OpenReport, theme: str) -> None:
    opened = open_report(gpt_report(), view="timeline", color_scheme=theme)
    other = "dark" if theme == "light" else "light"
    background = "getComputedStyle(document.documentElement).getPropertyValue('--page').trim()"
    ink = "memtrace.timeline.colors().ink"
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
