"""The map of allocations in a browser: pixel for pixel what Python says of the moment, with WebGL2 and without."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from memtrace.analysis.results.report import AllocationMap, Report
from memtrace.report.page.report import render_html
from memtrace.units import format_bytes
from tests.browser.conftest import watched
from tests.browser.map_runs import HOSTILE_NAME, MODULES, device_report, gap_report, host_report, map_of
from tests.browser.opened import Opened, OpenReport

if TYPE_CHECKING:
    from playwright.sync_api import Browser

pytestmark = pytest.mark.browser

RUNS = {"device": device_report, "host": host_report, "gap": gap_report}
DRAWN = """every => {
    const { drawn, painter, camera } = memtrace.map;
    const { width, height, moments, ids } = drawn;
    const columns = [];
    for (let column = 0; column < width; column += every) {
        const shown = ids.subarray(column * height, (column + 1) * height);
        columns.push([column, moments[column], [...shown].map((id) => id % 2 ** 31)]);
    }
    return { painter, width, height, camera: camera(), columns };
}"""


def base_at(found: AllocationMap, moment: int) -> int:
    """Return the bytes at the bottom of a moment that no known block makes up."""
    return int(found.base_bytes[np.searchsorted(found.epoch_start, moment, side="right") - 1])


def level_of(found: AllocationMap) -> np.ndarray[Any, Any]:
    """Return the bytes in use at each moment."""
    level = np.zeros(found.num_moments + 1, np.int64)
    np.add.at(level, found.start, found.size_bytes)
    np.subtract.at(level, found.in_use_end, found.size_bytes)
    return np.cumsum(level)[:-1] + np.array([base_at(found, moment) for moment in range(found.num_moments)])


def stacked_column(found: AllocationMap, moment: int, places: np.ndarray[Any, Any]) -> list[int]:
    """Return the id at each place of the stack of a moment: row plus one, 0 above it."""
    live = np.flatnonzero((found.start <= moment) & (found.in_use_end > moment))
    base = base_at(found, moment)
    at = np.searchsorted(base + np.cumsum(found.size_bytes[live]), places, side="right")
    ids = np.append(live + 1, 0)[at]
    epoch = int(np.searchsorted(found.epoch_start, moment, side="right"))
    return [len(found.start) + epoch if place < base else int(one) for place, one in zip(places, ids, strict=True)]


def addressed_column(found: AllocationMap, moment: int, places: np.ndarray[Any, Any]) -> list[int]:
    """Return the id at each place of the address axis at a moment; -1 where nothing covers the place itself."""
    blocks = found.size_bytes if found.block_bytes is None else found.block_bytes
    live = np.flatnonzero((found.start <= moment) & (found.end > moment))
    live = live[np.argsort(found.place_bytes[live])]
    at = np.searchsorted(found.place_bytes[live], places, side="right") - 1
    row = np.append(live, -1)[at]
    inside = (at >= 0) & (places < (found.place_bytes + blocks)[row])
    return [int(one) for one in np.where(inside, row + 1, -1)]


def check_picture(drawn: dict[str, Any], found: AllocationMap, layout: str) -> None:
    """Assert that columns show real moments, the highest of those that they cover, and that each pixel is right."""
    width, height, camera = drawn["width"], drawn["height"], drawn["camera"]
    level = level_of(found)
    edges = camera["x0"] + np.arange(width + 1) * (camera["x1"] - camera["x0"]) / width
    centers = camera["y0"] + (np.arange(height) + 0.5) * (camera["y1"] - camera["y0"]) / height
    for column, moment, ids in drawn["columns"]:
        first = max(int(np.floor(edges[column] + 1e-9)), 0)
        last = min(max(int(np.ceil(edges[column + 1] - 1e-9)) - 1, first), found.num_moments - 1)
        assert level[moment] == level[first : last + 1].max()
        if layout == "stacked":
            assert ids == stacked_column(found, moment, centers)
        else:
            wanted = addressed_column(found, moment, centers)
            assert [one for one, want in zip(ids, wanted, strict=True) if want > 0] == [
                want for want in wanted if want > 0
            ]


@pytest.mark.parametrize("layout", ["stacked", "address"])
@pytest.mark.parametrize("run", RUNS)
def test_every_pixel_is_the_allocation_that_lies_there(open_report: OpenReport, run: str, layout: str) -> None:
    report = RUNS[run]()
    found = map_of(report)
    opened = open_report(report, hash=f"#view=map&axis=event&layout={layout}&painter=webgl2")
    drawn = opened.page.evaluate(DRAWN, 29)
    assert drawn["painter"] == "webgl2"
    assert drawn["width"] > 600
    check_picture(drawn, found, layout)
    # Zoomed in: a stretch of moments, and part of the height.
    camera = drawn["camera"]
    near = {"x0": 5.3, "x1": 21.9, "y0": camera["y1"] * 0.1, "y1": camera["y1"] * 0.35}
    opened.page.evaluate("camera => memtrace.map.moveTo(camera)", near)
    check_picture(opened.page.evaluate(DRAWN, 31), found, layout)


@pytest.mark.parametrize("axis", ["event", "wall"])
def test_any_allocation_can_be_zoomed_to_and_picked(open_report: OpenReport, axis: str) -> None:
    report = device_report()
    found = map_of(report)
    opened = open_report(report, hash=f"#view=map&axis={axis}")
    rows = [int(row) for row in np.flatnonzero(found.in_use_end > found.start)][::7]
    picked = opened.page.evaluate("rows => rows.map((row) => memtrace.map.pickCenter(row))", rows)
    assert picked == rows


def test_a_gap_on_the_wall_clock_is_empty(open_report: OpenReport) -> None:
    found = map_of(gap_report())
    opened = open_report(gap_report(), hash="#view=map&axis=wall")
    drawn = opened.page.evaluate(DRAWN, 1)
    (fold,) = opened.page.evaluate("memtrace.map.data.folds")
    assert found.time_ns is not None
    first = int(found.epoch_start[1])
    seconds = [float(found.time_ns[at] - found.time_ns[0]) / 1e9 for at in (first - 1, first)]
    assert [fold["start"], fold["end"]] == pytest.approx(seconds)
    camera = drawn["camera"]
    wide = (camera["x1"] - camera["x0"]) / drawn["width"]
    inside = [
        set(ids) == {0}
        for column, _, ids in drawn["columns"]
        if camera["x0"] + column * wide > fold["from"] and camera["x0"] + (column + 1) * wide <= fold["to"]
    ]
    assert len(inside) > 3
    assert all(inside)


def point_at_row(opened: Opened, row: int) -> tuple[float, float]:
    """Move the pointer onto a pixel of an allocation, and return where that is."""
    column, line = opened.page.evaluate(
        """id => {
            const { width, height, ids } = memtrace.map.drawn;
            const found = [];
            ids.forEach((one, at) => { if (one % 2 ** 31 === id) found.push(at); });
            const at = found[found.length >> 1];
            return [Math.floor(at / height) + 0.5, height - 0.5 - (at % height)];
        }""",
        row + 1,
    )
    box = opened.page.locator(".map-picture").bounding_box()
    assert box is not None
    opened.page.mouse.move(box["x"] + column, box["y"] + line)
    return box["x"] + column, box["y"] + line


def largest_row(found: AllocationMap) -> int:
    """Return the row of the most bytes × moments, which is sure to be on screen."""
    return int(np.argmax(found.size_bytes * (found.in_use_end - found.start)))


def test_the_pointer_reads_the_moment_and_a_click_tells_all(open_report: OpenReport) -> None:
    report = host_report()
    found = map_of(report)
    opened = open_report(report, hash="#view=map&axis=event")
    row = largest_row(found)
    x, y = point_at_row(opened, row)
    assert opened.text(".map .reading tr[data-label=allocation] td.number") == format_bytes(int(found.size_bytes[row]))
    left = opened.page.locator(".map-picture").bounding_box()
    assert left is not None
    moment = opened.page.evaluate("column => memtrace.map.drawn.moments[column]", int(x - left["x"]))
    assert opened.text(".map .reading tr.total td.number") == format_bytes(int(level_of(found)[moment]))
    opened.page.mouse.click(x, y)
    facts = {
        fact.get_attribute("data-fact"): fact.locator("dd").inner_text()
        for fact in opened.page.locator("#map-details [data-fact]").all()
    }
    assert facts["requested"] == f"{format_bytes(4 << 20)} ({4 << 20:,} B)"
    assert facts["category"] == "parameters"
    assert facts["how it is known"] == "certain: its owner is known"
    assert facts["owner"] == f"w {HOSTILE_NAME}"
    assert facts["shape"] == "1024x1024"
    assert facts["address"] == "0x1000"
    assert facts["freed"].startswith("never")
    assert f"row={row}" in opened.page.url
    opened.page.reload()
    opened.wait()
    assert opened.text("#map-details [data-fact=owner] dd") == f"w {HOSTILE_NAME}"


@pytest.mark.parametrize(
    ("text", "means"),
    [
        ("attend", lambda found, row: "attend" in stack_text(found, row)),
        (">4MiB", lambda found, row: found.size_bytes[row] > 4 << 20),
        ("forward <1m", lambda found, row: "forward" in stack_text(found, row) and found.size_bytes[row] < 1 << 20),
        (HOSTILE_NAME.split()[0], lambda found, row: HOSTILE_NAME in stack_text(found, row)),
        ("nothing-like-it", lambda found, row: False),
    ],
)
def test_search_finds_by_stack_and_size(open_report: OpenReport, text: str, means: Any) -> None:
    report = device_report()
    found = map_of(report)
    opened = open_report(report, hash="#view=map")
    opened.page.keyboard.press("/")
    opened.page.keyboard.type(text)
    rows = [row for row in range(len(found.start)) if means(found, row)]
    total = int(found.size_bytes[rows].sum()) if rows else 0
    assert opened.text("#map-found") == f"{len(rows):,} found, {format_bytes(total)} in all"


def stack_text(found: AllocationMap, row: int) -> str:
    """Return all frames of an allocation in one text."""
    frames, one = [], int(found.stack[row])
    while one >= 0:
        frames.append(found.frames[found.stack_frame[one]])
        one = int(found.stack_parent[one])
    return "\n".join(frames)


def test_same_stack_chooses_the_siblings(open_report: OpenReport) -> None:
    report = device_report()
    found = map_of(report)
    row = int(np.flatnonzero(found.stack >= 0)[3])
    opened = open_report(report, hash=f"#view=map&row={row}")
    opened.page.locator("#same-stack").click()
    siblings = int(np.count_nonzero(found.stack == found.stack[row]))
    assert opened.text("#map-found").startswith(f"{siblings} of the same stack")


def test_keys_wheel_and_drag_move_the_camera_and_the_hash_keeps_it(open_report: OpenReport) -> None:
    opened = open_report(device_report(), hash="#view=map&axis=event")
    whole = opened.page.evaluate("memtrace.map.camera()")
    opened.page.keyboard.press("+")
    opened.until("whole => memtrace.map.camera().x1 < whole.x1", whole)
    opened.page.keyboard.press("ArrowRight")
    box = opened.page.locator("#map-surface").bounding_box()
    assert box is not None
    opened.page.mouse.move(box["x"] + 400, box["y"] + 200)
    opened.page.mouse.wheel(0, -300)
    opened.until("location.hash.includes('camera')")
    opened.page.wait_for_timeout(300)
    camera = opened.page.evaluate("memtrace.map.camera()")
    opened.page.reload()
    opened.wait()
    again = opened.page.evaluate("memtrace.map.camera()")
    assert {key: pytest.approx(value, rel=1e-9) for key, value in camera.items()} == again
    opened.page.keyboard.press("0")
    opened.until("whole => memtrace.map.camera().x1 === whole.x1", whole)


def test_keys_change_axis_and_layout(open_report: OpenReport) -> None:
    opened = open_report(device_report(), hash="#view=map&axis=event")
    pressed = ".map [aria-pressed=true]"
    assert opened.texts(pressed) == ["stacked", "events", "category"]
    opened.page.keyboard.press("l")
    opened.page.keyboard.press("x")
    assert opened.texts(pressed) == ["by address", "wall clock", "category"]
    assert "layout=address" in opened.page.url
    whole = opened.page.evaluate("memtrace.map.camera()")
    found = map_of(device_report())
    assert whole["y1"] == found.ranges[-1].place_bytes + found.ranges[-1].size_bytes


@pytest.mark.parametrize("colour", ["category", "module", "step", "size"])
def test_each_colouring_has_a_legend(open_report: OpenReport, colour: str) -> None:
    opened = open_report(host_report(), hash=f"#view=map&colour={colour}")
    legend = opened.text("#map-legend")
    wanted = {"category": "parameters", "module": HOSTILE_NAME, "step": "step 2", "size": "4.00 GiB"}
    assert wanted[colour] in legend
    assert MODULES[2] == HOSTILE_NAME


@pytest.mark.parametrize("run", RUNS)
def test_every_view_counts_allocations_alike(open_report: OpenReport, run: str) -> None:
    # Blocks that were there before are listed on the map, and are no allocations of the recording.
    number = f"{RUNS[run]().ranks[0].num_allocations:,} allocations"
    opened = open_report(RUNS[run](), view="map")
    assert opened.text("#map-count") == number
    opened.go("overview")
    assert number in opened.text("[data-card=completeness]")


# Without WebGL2


def test_both_painters_paint_the_same(open_report: OpenReport) -> None:
    colors = []
    for painter in ("webgl2", "canvas"):
        opened = open_report(device_report(), hash=f"#view=map&axis=event&row=60&q=forward&painter={painter}")
        assert opened.page.evaluate("memtrace.map.painter") == painter
        places = [[x, y] for x in range(3, 800, 41) for y in range(2, 480, 19)]
        script = "places => { memtrace.map.paint(); return places.map(([x, y]) => memtrace.map.readPixel(x, y)); }"
        colors.append(np.array(opened.page.evaluate(script, places)))
    # Rounding apart.
    assert np.abs(colors[0] - colors[1]).max() <= 2
    assert len(np.unique(colors[0], axis=0)) > 10


def test_an_emulated_webgl_is_passed_over(open_report: OpenReport) -> None:
    # The browser of the tests has no GPU: WebGL would be ten times slower there than a canvas.
    opened = open_report(device_report(), hash="#view=map")
    assert opened.page.evaluate("memtrace.map.painter") == "canvas"


@pytest.fixture(scope="module")
def canvas_browser(browser: Browser) -> Iterator[Browser]:
    """A Chromium in which WebGL is switched off."""
    from tests.find_browser import FLAGS, installed_browser

    running = browser.browser_type.launch(executable_path=installed_browser(), args=[*FLAGS, "--disable-3d-apis"])
    yield running
    running.close()


def test_a_canvas_draws_the_same_where_there_is_no_webgl(canvas_browser: Browser, tmp_path: Path) -> None:
    report: Report = device_report()
    path = tmp_path / "report.html"
    path.write_text(render_html(report), encoding="utf-8")
    opened = watched(canvas_browser.new_context(viewport={"width": 1280, "height": 900}))
    opened.page.goto(path.as_uri() + "#view=map&axis=event")
    opened.wait()
    drawn = opened.page.evaluate(DRAWN, 37)
    assert drawn["painter"] == "canvas"
    check_picture(drawn, map_of(report), "stacked")
    for view in ("overview", "timeline", "peak", "segments", "steps", "recording"):
        opened.go(view)
    opened.page.context.close()
    assert opened.complaints == []
    assert opened.requests == []
