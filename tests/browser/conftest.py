"""Fixtures of the browser tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from memtrace.analysis.results.report import Report
from memtrace.report.page.report import render_html
from tests.browser.opened import Opened, OpenReport

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext


@pytest.fixture
def open_report(browser: Browser, tmp_path: Path) -> Iterator[OpenReport]:
    """A function that opens a report and, after the test, asserts that it was silent and asked for nothing."""
    pages: list[Opened] = []

    def open_it(report: Report, *, view: str = "overview", hash: str | None = None, **options: Any) -> Opened:
        path = tmp_path / "report.html"
        path.write_text(render_html(report), encoding="utf-8")
        pages.append(watched(browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **options})))
        pages[-1].page.goto(path.as_uri() + (f"#view={view}" if hash is None else hash))
        pages[-1].wait()
        return pages[-1]

    yield open_it
    for opened in pages:
        opened.page.context.close()
        assert opened.complaints == []
        assert opened.requests == []


def note(opened: Opened, text: str) -> None:
    """Keep a complaint, except for what the browser says of reading pixels back: it does so itself to compose a page
    without a GPU, and tests do."""
    if "GPU stall due to ReadPixels" not in text and "willReadFrequently" not in text:
        opened.complaints.append(text)


def watched(context: BrowserContext) -> Opened:
    """Return a new page whose words and requests are noted; every request that is not for a file is refused."""
    opened = Opened(context.new_page())
    opened.page.on("console", lambda message: note(opened, f"{message.type}: {message.text}"))
    opened.page.on("pageerror", lambda error: opened.complaints.append(str(error)))
    opened.page.on("dialog", lambda dialog: (opened.complaints.append("dialog"), dialog.dismiss()))

    def guard(route: Any) -> None:
        if route.request.url.startswith(("file://", "blob:")):
            route.continue_()
        else:
            opened.requests.append(route.request.url)
            route.abort()

    context.route("**/*", guard)
    return opened
