"""The page for those who use no mouse, see little colour, hold a phone or print it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from memtrace.analysis.results.report import Report
from memtrace.report.drawing.palette import THEMES
from memtrace.units import format_bytes
from tests.browser.map_runs import device_report, host_report, map_of
from tests.browser.opened import OpenReport
from tests.fake_report import gpt_report, ranks_report
from tests.timed_reports import timed_report

VIEWS = ("overview", "timeline", "map", "peak", "segments", "steps", "time", "ranks", "recording")
READABLE = 4.5

# What a screen reader would stumble over: things to operate inside of pictures, things without a name, ids twice.
STUMBLES = """() => {
    const focusable = "a[href], button, input, select, [tabindex]";
    const named = (one) => one.textContent.trim() || one.getAttribute("aria-label") || one.title
        || (one.id && document.querySelector(`label[for="${one.id}"]`));
    const ids = [...document.querySelectorAll("[id]")].map((one) => one.id);
    const describe = (one) => one.outerHTML.slice(0, 90);
    return [
        ...[...document.querySelectorAll(`[role=img] :is(${focusable}), [role=img]:is(${focusable})`)].map(describe),
        ...[...document.querySelectorAll("button, a[href], input, select, [role=application], [role=img]")]
            .filter((one) => !named(one)).map(describe),
        ...ids.filter((one, at) => ids.indexOf(one) !== at),
        ...[...document.querySelectorAll("th")].filter((one) => !one.textContent.trim()).map(describe),
    ];
}"""


def luminance(color: str) -> float:
    """Return the relative luminance of "#rrggbb"."""
    channels = [int(color[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [one / 12.92 if one <= 0.04045 else ((one + 0.055) / 1.055) ** 2.4 for one in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    """Return the contrast of two colours, from 1 to 21."""
    low, high = sorted([luminance(one), luminance(other)])
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("theme", THEMES)
def test_all_text_is_readable_on_what_it_stands_on(theme: str) -> None:
    colors = THEMES[theme]
    for ink in ("ink", "muted", "good", "warn", "bad", "accent"):
        for ground in ("panel", "page"):
            assert contrast(colors[ink], colors[ground]) >= READABLE, (ink, ground)
    for ink, ground in (("bad", "bad-soft"), ("ink", "bad-soft"), ("muted", "bad-soft"), ("ink", "grid")):
        assert contrast(colors[ink], colors[ground]) >= READABLE, (ink, ground)
    for phase in ("data", "forward", "backward", "other"):
        assert contrast(colors["ink"], colors[f"phase-{phase}"]) >= READABLE, phase
    assert contrast(colors["phase-optimizer-ink"], colors["phase-optimizer"]) >= READABLE


@pytest.mark.browser
@pytest.mark.parametrize("make", [gpt_report, host_report, timed_report, lambda: ranks_report(4)])
def test_no_view_makes_a_screen_reader_stumble(open_report: OpenReport, make: Callable[[], Report]) -> None:
    opened = open_report(make())
    for view in opened.page.locator("nav.views a").all():
        view.click()
        opened.wait()
        assert opened.page.evaluate(STUMBLES) == []


@pytest.mark.browser
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_axe_finds_nothing_serious(open_report: OpenReport, theme: str) -> None:
    axe = pytest.importorskip("axe_playwright_python.base", reason="axe-playwright-python is not installed")
    source: Any = axe.AXE_FILE_PATH
    opened = open_report(host_report(), color_scheme=theme, bypass_csp=True)
    for view in VIEWS:
        if opened.page.locator(f"[data-view={view}]").count() == 0:
            continue
        opened.go(view)
        opened.page.evaluate(source.read_text(encoding="utf-8"))
        found = opened.page.evaluate("axe.run(document, { resultTypes: ['violations'] })")["violations"]
        assert [one["id"] for one in found if one["impact"] in ("serious", "critical")] == []


@pytest.mark.browser
def test_a_phone_shows_every_view_without_scrolling_sideways(open_report: OpenReport) -> None:
    opened = open_report(device_report(), viewport={"width": 420, "height": 860}, has_touch=True)
    for view in opened.page.locator("nav.views a").all():
        view.click()
        opened.wait()
        assert opened.page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    opened.go("map")
    plot = opened.page.evaluate("memtrace.map.plot()")
    assert plot["width"] >= 300
    assert plot["height"] >= 350


@pytest.mark.browser
def test_paper_holds_every_view_drawn(open_report: OpenReport) -> None:
    report = host_report()
    opened = open_report(report)
    # What the views draw from is loaded when the page has nothing else to do.
    opened.page.wait_for_timeout(700)
    opened.page.emulate_media(media="print")
    opened.page.evaluate("dispatchEvent(new Event('beforeprint'))")
    heads = opened.texts(".print-head")
    assert heads == [one.strip() for one in opened.page.locator("nav.views a").all_text_contents()]
    found = map_of(report)
    painted = opened.page.evaluate(
        """['glance', 'timeline', 'map'].map((part) => {
            const picture = document.querySelector(`#${part}-surface .map-picture`);
            const { data } = picture.getContext("2d").getImageData(0, 0, picture.width, picture.height);
            return new Set(new Uint32Array(data.buffer)).size;
        })"""
    )
    assert all(colors > 3 for colors in painted)
    assert format_bytes(int(found.size_bytes.max())) in opened.text("#live-table")
    opened.page.evaluate("dispatchEvent(new Event('afterprint'))")
    opened.wait()
    assert opened.page.locator(".print-head").count() == 0


@pytest.mark.browser
def test_words_are_explained_beside_the_keys(open_report: OpenReport) -> None:
    opened = open_report(gpt_report())
    opened.page.keyboard.press("?")
    words = opened.texts("#words dt")
    assert {"peak", "reserved", "activations", "unattributed", "fragmentation"} <= set(words)
    assert len(words) == len(set(words))


@pytest.mark.browser
def test_the_card_is_there_without_scripts(open_report: OpenReport) -> None:
    report = host_report()
    opened_context = open_report(report).page.context.browser
    assert opened_context is not None
    context = opened_context.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(open_report(report).page.url.split("#")[0])
    assert page.locator("#verdict").inner_text() == report.verdict
    assert page.locator(".card-peak b").inner_text() == format_bytes(report.ranks[0].peak.allocated_bytes)
    assert page.locator("noscript p").is_visible()
    context.close()


@pytest.mark.browser
def test_a_report_of_nothing_opens_and_prints(open_report: OpenReport) -> None:
    opened = open_report(Report(verdict="Nothing could be read.", ranks=(), findings=(), warnings=(), title="x"))
    assert opened.text("#verdict") == "Nothing could be read."
    for key in ("?", "Escape", "2", "]", "/", "c", "x", "t"):
        opened.page.keyboard.press(key)
    opened.page.evaluate("dispatchEvent(new Event('beforeprint'))")
    opened.page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert opened.text("#verdict") == "Nothing could be read."
