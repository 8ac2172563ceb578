"""The page of a what-if in a browser: opened from disk, silent, offline, and showing the numbers of the result."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from memtrace.allocator.results import WhatIf
from memtrace.report.answers.whatif import MODEL_NOTE
from memtrace.report.drawing.palette import THEMES
from memtrace.report.output import write_whatif
from memtrace.units import format_bytes
from tests.fake_report import HOSTILE
from tests.report.fake_whatif import diverging, hostile, result

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.browser

OpenResults = Callable[..., "Page"]


@pytest.fixture
def open_results(browser: Browser, tmp_path: Path) -> Iterator[OpenResults]:
    """A function that opens results and, after the test, asserts that the page was silent and asked for nothing."""
    complaints: list[str] = []
    contexts: list[Any] = []

    def open_it(results: Sequence[WhatIf], **options: Any) -> Page:
        path = tmp_path / "whatif.html"
        write_whatif(results, path, title="snapshot.pickle", force=True)
        context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **options})
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: complaints.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("dialog", lambda dialog: (complaints.append("dialog"), dialog.dismiss()))
        page.on(
            "request",
            lambda request: None if request.url.startswith(("file:", "data:")) else complaints.append(request.url),
        )
        page.goto(path.as_uri())
        page.wait_for_selector("html[data-ready=true]")
        return page

    yield open_it
    for context in contexts:
        context.close()
    assert complaints == []


def test_the_numbers_are_those_of_the_result(open_results: OpenResults) -> None:
    results = [result(0), diverging()]
    page = open_results(results)
    for at, one in enumerate(results):
        section = page.locator(f"#device-{at}")
        assert section.locator("h2").inner_text() == f"rank {one.rank} · {one.device}"
        assert MODEL_NOTE in section.inner_text()
        rows = section.locator("tbody tr:not(.why)")
        assert rows.count() == len(one.rows)
        for number, row in enumerate(one.rows):
            sizes = (row.peak_allocated_bytes, row.max_reserved_bytes, row.wasted_bytes)
            shown = rows.nth(number)
            cells = shown.locator("td").all_inner_texts()
            assert cells[:3] == [format_bytes(size) for size in sizes]
            assert cells[3:] == [
                f"{row.num_device_mallocs:,}",
                str(row.num_alloc_retries),
                "fits" if row.fits else "does not fit",
            ]
            cells = shown.locator("td[data-bytes]").all()
            assert [cell.get_attribute("data-bytes") for cell in cells] == [str(size) for size in sizes]
    assert (
        "Out of memory at event 683, after 1 retry: 38.0 MiB was asked for"
        in page.locator("#device-0 .why").inner_text()
    )


def test_bars_are_as_long_as_the_bytes_and_limits_stand_at_the_capacity(open_results: OpenResults) -> None:
    one = result()
    page = open_results([one])
    for number, row in enumerate(one.rows):
        track, allocated, wasted = (
            page.locator(f"#bar-0-{number} .{name}").bounding_box() for name in ("track", "allocated", "wasted")
        )
        assert track
        assert allocated
        assert wasted
        # The capacity of 1 GiB is the largest of all.
        assert allocated["width"] / track["width"] == pytest.approx(row.peak_allocated_bytes / 2**30, abs=0.005)
        assert wasted["width"] / track["width"] == pytest.approx(row.wasted_bytes / 2**30, abs=0.005)
        limits = page.locator(f"#bar-0-{number} .limit")
        assert limits.count() == (row.capacity_bytes is not None)
        if row.capacity_bytes is not None:
            limit = limits.bounding_box()
            assert limit
            place = (limit["x"] + 1 - track["x"]) / track["width"]
            assert place == pytest.approx(row.capacity_bytes / 2**30, abs=0.005)


def test_hostile_texts_are_shown_and_do_nothing(open_results: OpenResults) -> None:
    for text in HOSTILE[:2]:
        page = open_results([hostile(text)])
        assert page.locator("#verdict").inner_text().startswith(text)
        assert page.locator("#bar-0-0 .name").inner_text() == text
        assert page.locator("img").count() == 0


def test_light_and_dark(open_results: OpenResults) -> None:
    page = open_results([result()], color_scheme="dark")

    def background() -> str:
        return str(page.evaluate("getComputedStyle(document.documentElement).getPropertyValue('--page').trim()"))

    assert background() == THEMES["dark"]["page"]
    page.locator("#theme").click()
    assert background() == THEMES["light"]["page"]
    page.keyboard.press("t")
    assert background() == THEMES["dark"]["page"]


def test_a_narrow_page_does_not_scroll_sideways(open_results: OpenResults) -> None:
    page = open_results([result()], viewport={"width": 400, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
