"""Take the picture of a report for README and docs: `python docs/screenshot.py REPORT.html docs/images/report.png`.

Needs Playwright and a Chromium: the one in $CHROMIUM or on PATH, else Playwright's own. The picture is the top of the
page, 1280 pixels wide, and an error above 300 KB so that the repository stays small.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from pathlib import Path

from playwright.sync_api import sync_playwright

LIMIT_BYTES = 300_000
QUIET = (
    "--no-sandbox",
    "--disable-gpu",
    "--enable-unsafe-swiftshader",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
)


def main() -> int:
    """Take one picture; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("report", type=Path, help="HTML report")
    parser.add_argument("picture", type=Path, help="PNG to write")
    parser.add_argument("--width", type=int, default=1280)
    parser.add_argument("--height", type=int, default=850, help="of the picture; 0 is the whole page")
    parser.add_argument("--dark", action="store_true")
    parser.add_argument("--view", default="", help="hash of the view, as view=map&axis=event; the overview by default")
    options = parser.parse_args()
    options.picture.parent.mkdir(parents=True, exist_ok=True)
    view = f"#{options.view}" if options.view else ""
    take(options.report, view, options.picture, width=options.width, height=options.height, dark=options.dark)
    size = options.picture.stat().st_size
    print(f"Wrote {options.picture} ({size / 1000:.0f} KB)")
    if size > LIMIT_BYTES and options.height:
        print(f"error: more than {LIMIT_BYTES // 1000} KB; choose a smaller --height", file=sys.stderr)
        return 1
    return 0


def take(report: Path, view: str, picture: Path, *, width: int, height: int, dark: bool) -> None:
    """Open a report and write what it looks like."""
    chromium = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=list(QUIET))
        page = browser.new_page(
            viewport={"width": width, "height": height or 900}, color_scheme="dark" if dark else "light"
        )
        page.goto(report.resolve().as_uri() + view)
        page.wait_for_selector("html[data-ready=true]")
        page.screenshot(path=picture, full_page=not height)
        browser.close()


if __name__ == "__main__":
    sys.exit(main())
