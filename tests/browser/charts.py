"""Pointing at places of the charts in a page: the timeline and the map."""

from __future__ import annotations

from tests.browser.opened import Opened

WHERE = """([part, place, row]) => {
    const { camera, plot } = memtrace[part];
    const box = document.getElementById(`${part}-surface`).getBoundingClientRect();
    const { left, top, width, height } = plot();
    const { x0, x1 } = camera();
    const y = row === null ? top + height / 2 : box.height - 26 - row * 16;
    return [box.left + left + ((place - x0) / (x1 - x0)) * width, box.top + y];
}"""


def position_of(
    opened: Opened, place: float, *, part: str = "timeline", row: float | None = None
) -> tuple[float, float]:
    """Return where a place of the horizontal axis is in the window: in the memory, or `row` rows of time above the
    ruler's foot."""
    opened.page.locator(f"#{part}-surface").evaluate("one => one.scrollIntoView({ block: 'end' })")
    left, top = opened.page.evaluate(WHERE, [part, place, row])
    return left, top


def point_at(opened: Opened, place: float, *, part: str = "timeline", row: float | None = None) -> None:
    """Move the pointer over a place of the horizontal axis."""
    opened.page.mouse.move(*position_of(opened, place, part=part, row=row))
    opened.page.wait_for_selector(".reading:not([hidden])")


def readings(opened: Opened) -> dict[str | None, str]:
    """Return what the pointer reads, by label."""
    return {
        line.get_attribute("data-label"): line.locator("td.number").inner_text()
        for line in opened.page.locator(".reading tr").all()
    }
