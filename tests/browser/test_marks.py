"""What is marked on timeline and map: the same lines at the same places, and the view that a chart opens on."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from memtrace.analysis.results.report import OomResult, Report
from memtrace.report.drawing.palette import THEMES
from memtrace.units import format_bytes
from tests.browser.map_runs import device_report, host_report, map_of
from tests.browser.opened import OpenReport

pytestmark = pytest.mark.browser

MIB = 2**20
CAPACITY = 8 * MIB
# Where pixels of a colour lie on the canvas of marks: how many in each column and in each row of the plot.
COLOURED = """([part, color]) => {
    const canvas = document.querySelector(`#${part}-surface .map-over`);
    const { left, top, width, height } = memtrace[part].plot();
    const { data } = canvas.getContext("2d").getImageData(left, top, width, height);
    const [columns, rows] = [new Array(width).fill(0), new Array(height).fill(0)];
    for (let y = 0; y < height; y += 1) {
        for (let x = 0; x < width; x += 1) {
            const at = (y * width + x) * 4;
            const is = data[at + 3] === 255 && color.every((one, channel) => Math.abs(data[at + channel] - one) <= 2);
            if (is) { columns[x] += 1; rows[y] += 1; }
        }
    }
    return [columns, rows];
}"""


@cache
def failed_report() -> Report:
    """Return a run that ran out of memory on a device of 8 MiB, long after it was started."""
    report = host_report()
    (rank,) = report.ranks
    assert rank.timeline is not None
    assert rank.allocation_map is not None
    assert rank.allocation_map.time_ns is not None
    oom = OomResult(
        step=2,
        phase="forward",
        module=None,
        time_ns=int(rank.timeline.time_ns[-4]),
        request_bytes=MIB,
        free_bytes=None,
        reserved_unallocated_bytes=None,
        capacity_bytes=CAPACITY,
        largest_free_block_bytes=None,
        cause=None,
        explanation=(),
    )

    def early(time_ns: np.ndarray) -> np.ndarray:  # type: ignore[type-arg]
        return np.concatenate([time_ns[:1] - 10_000, time_ns[1:]])

    timeline = replace(rank.timeline, time_ns=early(rank.timeline.time_ns))
    found = replace(rank.allocation_map, time_ns=early(rank.allocation_map.time_ns))
    changed = replace(rank, oom=oom, capacity_bytes=CAPACITY, timeline=timeline, allocation_map=found)
    return replace(report, ranks=(changed,))


@pytest.mark.parametrize("axis", ["wall", "event"])
def test_capacity_and_out_of_memory_are_lines_in_both(open_report: OpenReport, axis: str) -> None:
    opened = open_report(failed_report(), hash=f"#view=timeline&axis={axis}")
    bad = [int(THEMES["light"]["bad"][at : at + 2], 16) for at in (1, 3, 5)]
    shares = []
    for part in ("timeline", "map"):
        opened.go(part)
        camera, plot = (
            opened.page.evaluate(f"memtrace.{part}.camera()"),
            opened.page.evaluate(f"memtrace.{part}.plot()"),
        )
        columns, rows = opened.page.evaluate(COLOURED, [part, bad])
        column, row = int(np.argmax(columns)), int(np.argmax(rows))
        # A label may lie over some of a line.
        assert columns[column] > 0.8 * plot["height"]
        assert rows[row] > 0.5 * plot["width"]
        height = (CAPACITY - camera["y0"]) / (camera["y1"] - camera["y0"])
        assert 1 - (row + 0.5) / plot["height"] == pytest.approx(height, abs=2 / plot["height"])
        shares.append((column + 0.5) / plot["width"])
    assert shares[0] == pytest.approx(shares[1], abs=0.01)


def test_both_open_on_the_steps_and_zero_shows_all(open_report: OpenReport) -> None:
    report = failed_report()
    (rank,) = report.ranks
    assert rank.timeline is not None
    opened = open_report(report, view="timeline")
    start = min(step.start_ns for step in rank.steps if step.start_ns is not None)
    before = (start - int(rank.timeline.time_ns[0])) / 1e9
    for part in ("timeline", "map"):
        opened.go(part)
        home = opened.page.evaluate(f"memtrace.{part}.camera()")
        assert 0.9 * before < home["x0"] <= before
        opened.page.keyboard.press("0")
        opened.until(f"memtrace.{part}.camera().x0 === 0")
        opened.page.keyboard.press("0")
        opened.until(f"x0 => memtrace.{part}.camera().x0 === x0", home["x0"])


def test_the_timeline_goes_on_where_the_map_was(open_report: OpenReport) -> None:
    opened = open_report(host_report(), hash="#view=map&axis=event&camera=5,20,0,4000000")
    assert opened.page.evaluate("memtrace.map.camera()") == {"x0": 5, "x1": 20, "y0": 0, "y1": 4000000}
    opened.go("timeline")
    assert opened.page.evaluate("memtrace.timeline.camera()") == {"x0": 5, "x1": 20, "y0": 0, "y1": 4000000}


def test_what_is_shown_by_address_does_not_move_the_timeline(open_report: OpenReport) -> None:
    opened = open_report(host_report(), hash="#view=map&axis=event&layout=address&camera=5,20,0,900000")
    opened.go("timeline")
    whole = opened.page.evaluate("memtrace.timeline.camera()")
    assert whole["x1"] - whole["x0"] > 20
    assert "camera" not in opened.page.url


def test_what_a_search_finds_is_drawn_alone_on_the_timeline(open_report: OpenReport) -> None:
    found = map_of(device_report())
    rows = np.flatnonzero(found.size_bytes > 4 * MIB)
    level = np.zeros(found.num_moments + 1, np.int64)
    np.add.at(level, found.start[rows], found.size_bytes[rows])
    np.subtract.at(level, found.in_use_end[rows], found.size_bytes[rows])
    opened = open_report(device_report(), view="timeline")
    whole = opened.page.evaluate("[...memtrace.timeline.data.level]")
    opened.page.keyboard.press("/")
    opened.page.keyboard.type(">4MiB")
    assert opened.page.evaluate("[...memtrace.timeline.data.level]") == np.cumsum(level)[:-1].tolist()
    total = format_bytes(int(found.size_bytes[rows].sum()))
    assert opened.text("#timeline-found") == f"{len(rows):,} found, {total} in all"
    drawn = opened.page.evaluate(
        "[...memtrace.timeline.drawn.moments].filter((one) => one >= 0).map((one) => memtrace.timeline.data.level[one])"
    )
    assert max(drawn) == np.cumsum(level).max()
    # The map shows the same ones, and a reload brings them back.
    opened.go("map")
    assert opened.text("#map-found") == f"{len(rows):,} found, {total} in all"
    opened.go("timeline")
    assert opened.page.locator("#timeline-search").input_value() == ">4MiB"
    opened.page.keyboard.press("Escape")
    assert opened.page.evaluate("[...memtrace.timeline.data.level]") == whole
    assert "q=" not in opened.page.url
