"""Time beside memory in a browser: lanes as wide as their stretches, what the pointer reads, time without memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from memtrace.analysis.report import analyze
from memtrace.analysis.results.report import RankReport, Report
from memtrace.analysis.results.time import TimeLane
from memtrace.report.drawing.time_rows import time_columns
from memtrace.report.page.data.lanes import extent_ns, lane_rows
from memtrace.store.reading.read import read_trace
from memtrace.units import format_ns
from tests.browser.charts import point_at
from tests.browser.opened import OpenReport
from tests.timed_reports import rank_with_time, time_alone_report, timed_report

pytestmark = pytest.mark.browser

# How many pixels of each row are covered: what is drawn only in part counts as much as it is opaque.
COVERED = """num => {
    const canvas = document.querySelector("#timeline-surface .map-over");
    const { left, top, width, height } = memtrace.timeline.plot();
    const foot = canvas.height - 26;
    const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
    return Array.from({ length: num }, (_, at) => {
        const y = Math.floor(foot - (num - at - 0.5) * 16);
        let sum = 0;
        for (let x = left; x < left + width; x += 1) sum += data[(y * canvas.width + x) * 4 + 3];
        return [sum / 255, width];
    });
}"""
LANE_OF_ROW = {"copies": "copy", "data wait": "data", "memory calls": "allocator"}


def lane_of(rank: RankReport, row: str) -> TimeLane:
    """Return the lane that fills a row."""
    assert rank.time_tracks is not None
    name = LANE_OF_ROW.get(row, row)
    return next(lane for lane in rank.time_tracks.lanes if lane.name == name)


def covered_ns(lane: TimeLane, start_ns: float, end_ns: float) -> float:
    """Return the time that a lane covers of a window."""
    pairs: Sequence[tuple[int, int]] = list(zip(lane.start_ns.tolist(), lane.end_ns.tolist(), strict=True))
    return sum(max(0.0, min(end, end_ns) - max(start, start_ns)) for start, end in pairs)


@pytest.mark.parametrize("make", [timed_report, time_alone_report])
def test_lanes_are_as_wide_as_their_stretches(open_report: OpenReport, make: Callable[[], Report]) -> None:
    rank = rank_with_time(make())
    opened = open_report(make(), view="timeline")
    assert rank.time_tracks is not None
    rows, extent = lane_rows(rank.time_tracks), extent_ns(rank)
    assert extent is not None
    origin = extent[0]
    assert rows == ["compute", "communication", "copies", "idle", "data wait", "memory calls"]
    for span in (None, [0.0001, 0.0009], [0.0004, 0.00075]):
        if span is not None:
            move = "([x0, x1]) => memtrace.timeline.moveTo({ ...memtrace.timeline.camera(), x0, x1 })"
            opened.page.evaluate(move, span)
        camera = opened.page.evaluate("memtrace.timeline.camera()")
        shown = [camera["x0"], camera["x1"]]
        assert span is None or shown == pytest.approx(span)
        start_ns, end_ns = (origin + seconds * 1e9 for seconds in shown)
        for row, (pixels, width) in zip(rows, opened.page.evaluate(COVERED, len(rows)), strict=True):
            expected = covered_ns(lane_of(rank, row), start_ns, end_ns) / (end_ns - start_ns) * width
            # Colours have 256 levels, and a short wait is never less than a pixel.
            assert pixels == pytest.approx(expected, abs=max(2.0, 0.01 * expected)), row


def test_the_pointer_reads_what_how_long_and_in_which_step(open_report: OpenReport) -> None:
    opened = open_report(timed_report(), view="timeline")
    # Times are those of the profile, 1 ms later than the axis.
    for place, row, label, value in (
        (0.00060, 1, "communication, nothing computed", format_ns(200_000)),
        (0.00048, 1, "communication under compute", format_ns(250_000)),
        (0.00030, 0, "compute", format_ns(200_000)),
        (0.00112, 2, "copies and fills", format_ns(50_000)),
        (0.00105, 4, "waits for data", format_ns(60_000)),
    ):
        point_at(opened, place, row=5.5 - row)
        text = opened.text(".reading")
        assert label in text
        assert value in text
        assert f"step {1 if place < 0.001 else 2}" in text
    point_at(opened, 0.0003, row=4.5)
    assert "communication: nothing then" in opened.text(".reading")


def test_steps_begin_where_they_do_for_memory_on_the_axis_of_time_only(open_report: OpenReport) -> None:
    opened = open_report(timed_report(), view="timeline")
    lanes = opened.page.evaluate("memtrace.timeline.lanes('wall')")
    assert [(lane["from"], lane["text"]) for lane in lanes] == [(0, "step 1"), (pytest.approx(0.001), "step 2")]
    assert opened.page.evaluate(COVERED, 6)[0][0] > 0
    box = opened.page.locator("#timeline-surface").bounding_box()
    assert box is not None
    opened.page.keyboard.press("x")
    opened.until("high => document.getElementById('timeline-surface').clientHeight === high - 96", box["height"])


def test_the_map_has_the_same_lanes_below_it(open_report: OpenReport) -> None:
    opened = open_report(timed_report(), view="map")
    surface = opened.page.locator("#map-surface")
    opened.page.wait_for_selector("html[data-map=ready]")
    box = surface.bounding_box()
    assert box is not None
    point_at(opened, 0.0006, part="map", row=4.5)
    text = opened.text("#map .reading")
    assert "communication, nothing computed" in text
    assert format_ns(200_000) in text
    assert "step 1" in text
    opened.page.keyboard.press("x")
    opened.until("height => document.getElementById('map-surface').clientHeight === height - 96", box["height"])


def test_the_view_of_time_shows_the_figures_of_each_step(open_report: OpenReport) -> None:
    rank = rank_with_time(timed_report())
    assert rank.time is not None
    opened = open_report(timed_report(), view="time")
    columns = [cell for _, cell in time_columns(rank.time)]
    for split in (*rank.time.steps, rank.time.whole):
        name = "whole" if split.step is None else str(split.step)
        cells = opened.texts(f"[data-time-step='{name}'] td")
        assert cells[1:] == [cell(split) for cell in columns]
    assert "AllGather: 2 kernels" in opened.text(".remarks")
    shares = opened.page.evaluate(
        "[...document.querySelectorAll('#time .panel > .stacked-bar .piece')].map((one) => Number(one.style.flexGrow))"
    )
    assert sum(shares) == pytest.approx(1, abs=1e-5)


def test_a_profile_without_memory_is_no_empty_page(open_report: OpenReport) -> None:
    report = time_alone_report()
    time = rank_with_time(report).time
    assert time is not None
    opened = open_report(report)
    assert opened.text("[data-card=window] .card-value") == format_ns(time.whole.window_ns)
    assert opened.page.locator("[data-card=idle]").count() == 1
    assert opened.page.locator("#breakdown-table").count() == 0
    for view in ("timeline", "map", "peak", "segments", "steps", "time", "recording"):
        opened.go(view)
        assert opened.page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        assert len(opened.text("#page").splitlines()) > 10
        assert "No memory was recorded" in opened.text("#timeline" if view == "timeline" else "#verdict")


def test_two_sampled_ranks_of_a_large_run(open_report: OpenReport, shared_data: Path) -> None:
    paths = [shared_data / "kineto" / f"train-128-ranks-sampled-rank{rank}.json.gz" for rank in (0, 1)]
    opened = open_report(analyze(read_trace(paths), with_map=True), view="timeline")
    assert opened.text("[data-missing]") == "126 missing"
    compute, communication, *_ = opened.page.evaluate(COVERED, 4)
    assert 0 < compute[0] < communication[0]
    opened.page.locator("#rank-strip .rank-cell").nth(1).click()
    opened.wait()
    assert opened.page.evaluate(COVERED, 4)[0] != compute
