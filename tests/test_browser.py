"""The browser that tests of pages use can open one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser


@pytest.mark.browser
def test_browser_shows_a_page(browser: Browser) -> None:
    page = browser.new_page()
    page.set_content("<title>memtrace</title>")
    assert page.title() == "memtrace"
    page.close()
