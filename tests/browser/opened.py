"""A page that was opened from disk, and all that it said and asked for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from playwright.sync_api import Page


@dataclass
class Opened:
    """A page that was opened from disk, and all that it said and asked for."""

    page: Page
    complaints: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def text(self, selector: str) -> str:
        """Return the text of the one element that a selector names."""
        return self.page.locator(selector).inner_text()

    def texts(self, selector: str) -> list[str]:
        """Return the texts of all elements that a selector names."""
        return self.page.locator(selector).all_inner_texts()

    def go(self, view: str) -> None:
        """Change to a view by its tab, and wait until it is drawn."""
        self.page.locator(f"nav.views [data-view={view}]").click()
        self.wait()

    def until(self, expression: str, arg: object = None) -> None:
        """Wait until an expression is true. Playwright's own way evaluates text in the page: forbidden there."""
        for _ in range(200):
            if self.page.evaluate(expression, arg):
                return
            self.page.wait_for_timeout(50)
        raise AssertionError(f"never true: {expression}")

    def wait(self) -> None:
        """Wait until the view is drawn."""
        self.page.wait_for_selector("html[data-ready=true]")


OpenReport = Callable[..., Opened]
"""Opens a report; `view` is the view to open, `hash` the whole hash; the rest goes to the browser's context."""
