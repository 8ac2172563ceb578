"""Finds the Chromium that the tests use."""

from __future__ import annotations

import shutil
from pathlib import Path

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")

FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
"""A browser for tests: as root in a container, and without a word to the network."""


def installed_browser() -> str | None:
    """Return the path of a Chromium: one on PATH, else the one that Playwright installed; None if there is neither."""
    on_path = next((found for name in NAMES if (found := shutil.which(name))), None)
    return on_path or playwright_browser()


def playwright_browser() -> str | None:
    """Return the path of Playwright's own Chromium, or None."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        path = playwright.chromium.executable_path
    return path if Path(path).exists() else None
