"""The pure functions of the viewers, run in a browser on numbers drawn at random."""

from __future__ import annotations

import csv
import io
import random
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest

from memtrace.report.page.assets import joined_modules

if TYPE_CHECKING:
    from playwright.sync_api import Browser

pytestmark = pytest.mark.browser

Call = Callable[..., Any]


@pytest.fixture(scope="module")
def call(browser: Browser) -> Iterator[Call]:
    """A function that runs JavaScript with some functions of a module on an argument, and returns what it returns."""
    page = browser.new_page()

    def run(module: str, names: str, script: str, argument: Any) -> Any:
        source = f"{joined_modules(module)}\nexport {{ {names} }};"
        load = "import('data:text/javascript,' + encodeURIComponent(source))"
        return page.evaluate(
            f"([source, argument]) => {load}.then(({{ {names} }}) => ({script})(argument))", [source, argument]
        )

    yield run
    page.close()


def test_a_link_brings_back_what_was_shown(call: Call) -> None:
    states = [
        {"view": "map", "rank": 3, "axis": "event", "camera": {"x0": 0.5, "x1": 17.25, "y0": 0, "y1": 2.0**33}},
        {"view": "peak", "at": "moment", "moment": 12, "by": "stack", "q": "a&b=c #%<b> ü"},
        {"view": "segments", "row": 7, "colour": "size", "layout": "address"},
        {},
    ]
    script = "(states) => states.map((state) => parseHash(formatHash({ ...DEFAULTS, ...state })))"
    defaults = call("hash", "DEFAULTS", "() => DEFAULTS", None)
    assert call("hash", "DEFAULTS, parseHash, formatHash", script, states) == [defaults | state for state in states]
    assert call("hash", "DEFAULTS, formatHash", "() => formatHash(DEFAULTS)", None) == ""


@pytest.mark.parametrize("text", ["#rank=-1", "#moment=1e9", "#camera=4,3,2,1", "#axis=up&by=&at=x", "#%E0%A4%A", "##"])
def test_a_damaged_link_means_what_it_can(call: Call, text: str) -> None:
    defaults = call("hash", "DEFAULTS", "() => DEFAULTS", None)
    assert call("hash", "parseHash", "parseHash", text) == defaults


def test_csv_comes_back_and_begins_no_formula(call: Call) -> None:
    rows = [["name", "bytes"], ['a "quoted", one\nand more', 12], ["ünï", 0], ["plain", -5]]
    text = call("save", "csvText", "csvText", rows)
    assert list(csv.reader(io.StringIO(text))) == [[str(cell) for cell in row] for row in rows]
    assert call("save", "csvText", "csvText", [["=1+2", "@x", "+y", "-z", "\tt"]]) == "'=1+2,'@x,'+y,'-z,'\tt"


def test_ticks_read_apart_and_lie_inside(call: Call) -> None:
    draw = random.Random(3)
    for _ in range(60):
        low = draw.choice([0, draw.uniform(0, 2**38)])
        high = low + 2 ** draw.uniform(6, 40)
        ticks = call("ticks", "byteTicks", "([low, high]) => byteTicks(low, high, 8)", [low, high])
        assert 1 <= len(ticks) <= 9
        assert all(low <= tick["value"] <= high for tick in ticks)
        assert len({tick["text"] for tick in ticks}) == len(ticks)
        span = 10 ** draw.uniform(-7, 3)
        start = draw.choice([0, draw.uniform(0, 100)])
        ticks = call("ticks", "axisTicks", "([a, b]) => axisTicks(a, b, 8, true)", [start, start + span])
        assert 1 <= len(ticks) <= 10
        assert len({tick["text"] for tick in ticks}) == len(ticks)


def test_the_camera_stays_inside(call: Call) -> None:
    draw = random.Random(4)
    limits = {"x0": 0, "x1": 1000, "y0": 0, "y1": 5e9, "minX": 4, "minY": 16}
    for _ in range(200):
        x, y = draw.uniform(-3000, 3000), draw.uniform(-1e10, 1e10)
        camera = {"x0": x, "x1": x + 10 ** draw.uniform(-2, 4), "y0": y, "y1": y + 10 ** draw.uniform(0, 11)}
        shown = call("camera", "confined", "([camera, limits]) => confined(camera, limits)", [camera, limits])
        assert -1e-6 <= shown["x0"] < shown["x1"] <= 1000 + 1e-6
        assert -1 <= shown["y0"] < shown["y1"] <= 5e9 + 1
        wide = min(max(camera["x1"] - camera["x0"], 4), 1000)
        assert shown["x1"] - shown["x0"] == pytest.approx(wide)


def test_the_highest_and_lowest_moment_are_found_in_any_stretch(call: Call) -> None:
    draw = random.Random(5)
    level = [draw.randrange(50) for _ in range(700)]
    stretches = [sorted(draw.sample(range(700), 2)) for _ in range(300)]
    script = """([level, stretches]) => {
        const data = { level, highest: extremesOfBlocks(level, 1), lowest: extremesOfBlocks(level, -1) };
        return stretches.map(([first, last]) => [highestMoment(data, first, last), lowestMoment(data, first, last)]);
    }"""
    found = call("levels", "extremesOfBlocks, highestMoment, lowestMoment", script, [level, stretches])
    for (first, last), (high, low) in zip(stretches, found, strict=True):
        assert first <= high <= last
        assert first <= low <= last
        assert level[high] == max(level[first : last + 1])
        assert level[low] == min(level[first : last + 1])


def drawn_allocations(draw: random.Random, count: int, num_moments: int) -> dict[str, Any]:
    """Return allocations with lifetimes drawn at random, in the order of a stack, and two stretches without a gap."""
    starts = sorted(draw.randrange(num_moments - 1) for _ in range(count))
    ends = [min(start + 1 + int(draw.expovariate(1 / 40)), num_moments) for start in starts]
    order = sorted(range(count), key=lambda row: ends[row])
    sizes = [draw.choice([1, draw.randrange(1, 60), draw.randrange(1, 4000)]) for _ in range(count)]
    base = [[0, 500], [num_moments // 2, 90]]
    return {"start": starts, "inUseEnd": ends, "byInUseEnd": order, "size": sizes, "count": count, "base": base}


def test_both_ways_to_stack_give_one_picture(call: Call) -> None:
    draw = random.Random(6)
    script = """([data, moments, cameras]) => cameras.map((camera) => {
        const pictures = [0, 1e9].map((mostLive) => {
            const ids = new Uint32Array(moments.length * 90);
            rasterStacked({ ...data, mostLive }, moments, camera, moments.length, 90, ids);
            return ids;
        });
        const [one, other] = pictures;
        return [one.filter((id, at) => id % 2 ** 31 !== other[at] % 2 ** 31).length, new Set(one).size];
    })"""
    for _ in range(4):
        data = drawn_allocations(draw, 900, 400)
        moments = [-1, -1, *sorted(draw.choices(range(400), k=120))]
        cameras = [{"y0": low, "y1": low + high} for low in (0, 333.3, 20_000) for high in (100, 3000, 150_000)]
        found = call("stacked", "rasterStacked", script, [data, moments, cameras])
        assert [different for different, _ in found] == [0] * len(cameras)
        assert max(kinds for _, kinds in found) > 50


def test_sums_by_category_are_right_at_every_moment(call: Call) -> None:
    draw = random.Random(8)
    num_moments = 400
    data = drawn_allocations(draw, 900, num_moments) | {"category": [draw.randrange(3) for _ in range(900)]}
    data |= {"unknownCategory": 2}
    script = """([data, numMoments]) => {
        const checkpoints = categoryCheckpoints(data, numMoments, 3);
        return Array.from({ length: numMoments }, (_, at) => [...sumsAt({ ...data, checkpoints }, at, [0, 0, 0])]);
    }"""
    found = call("levels", "categoryCheckpoints, sumsAt", script, [data, num_moments])
    for moment, sums in enumerate(found):
        expected = [0, 0, next(base for first, base in reversed(data["base"]) if first <= moment)]
        for row in range(data["count"]):
            if data["start"][row] <= moment < data["inUseEnd"][row]:
                expected[data["category"][row]] += data["size"][row]
        assert sums == expected


def test_the_folded_clock_goes_both_ways_and_leaves_what_was_recorded(call: Call) -> None:
    draw = random.Random(9)
    seconds, firsts = [0.0], []
    for at in range(1, 60):
        if draw.random() < 0.1:
            firsts.append(at)
        seconds.append(seconds[-1] + (draw.uniform(5, 500) if at in firsts else draw.uniform(0.01, 1)))
    script = """([seconds, firsts]) => {
        const folds = foldsOf(seconds, firsts);
        const places = placesOf(seconds, folds);
        const back = [...places].map((place) => secondOfPlace(folds, place));
        const again = seconds.map((one) => placeOfSecond(folds, one));
        return [[...places], back, again, folds.map((one) => one.to - one.from)];
    }"""
    names = "foldsOf, placesOf, placeOfSecond, secondOfPlace"
    places, back, one_by_one, widths = call("folds", names, script, [seconds, firsts])
    assert len(widths) == len(firsts) > 2
    assert back == pytest.approx(seconds)
    assert one_by_one == pytest.approx(places)
    recorded = sum(seconds[at] - seconds[at - 1] for at in range(1, 60) if at not in firsts)
    assert sum(widths) <= 0.25 * recorded + 1e-9
    for at in range(1, 60):
        if at not in firsts:
            assert places[at] - places[at - 1] == pytest.approx(seconds[at] - seconds[at - 1])


def test_gaps_are_a_thumb_wide_among_what_is_looked_at(call: Call) -> None:
    # A hundred seconds of start, then steps of ten seconds with a gap among them.
    script = "([seconds, firsts, within]) => foldsOf(seconds, firsts, within).map((one) => one.to - one.from)"
    seconds = [0, 100, 104, 110, 150, 156, 160]
    (whole,) = call("folds", "foldsOf", script, [seconds, [4], [0, 160]])
    (among_steps,) = call("folds", "foldsOf", script, [seconds, [4], [100, 160]])
    assert whole == pytest.approx(0.03 * 120)
    assert among_steps == pytest.approx(0.03 * 20)


def test_labels_make_way_for_one_another(call: Call) -> None:
    draw = random.Random(10)
    script = """([labels, box]) => placedLabels(labels.map(({ x, y, wide, line }) => {
        const places = line ? besideLine(x, box.top, wide, 19) : aroundPoint(x, y, wide, 19);
        return { wide, high: 19, places };
    }), box).map(({ left, top, wide, high }) => ({ left, top, wide, high }))"""
    box = {"left": 90, "top": 4, "width": 900, "height": 400}
    for _ in range(60):
        # All at nearly one place, as a peak and an out-of-memory that follows it are.
        x, y = draw.uniform(90, 990), draw.uniform(4, 60)
        labels = [
            {"x": x + draw.uniform(-4, 4), "y": y, "wide": draw.uniform(60, 260), "line": draw.random() < 0.6}
            for _ in range(4)
        ]
        placed = call("labels", "placedLabels, besideLine, aroundPoint", script, [labels, box])
        for at, one in enumerate(placed):
            assert box["left"] <= one["left"] <= box["left"] + box["width"] - one["wide"]
            assert box["top"] <= one["top"] <= box["top"] + box["height"] - one["high"]
            for other in placed[:at]:
                beside = one["left"] + one["wide"] < other["left"] or other["left"] + other["wide"] < one["left"]
                assert beside or one["top"] + 19 < other["top"] or other["top"] + 19 < one["top"]


def test_a_label_does_not_cover_its_point(call: Call) -> None:
    draw = random.Random(11)
    script = """([points, box]) => placedLabels(points.map(([x, y]) => {
        return { wide: 150, high: 19, places: aroundPoint(x, y, 150, 19) };
    }), box, points).map(({ left, top, wide, high }) => ({ left, top, wide, high }))"""
    box = {"left": 90, "top": 4, "width": 900, "height": 400}
    for _ in range(60):
        # Near the upper edge, where a label above its point would be pushed down onto it.
        points = [[draw.uniform(90, 990), draw.uniform(4, 30)] for _ in range(3)]
        for one in call("labels", "placedLabels, aroundPoint", script, [points, box]):
            for x, y in points:
                beside = x + 4 < one["left"] or one["left"] + one["wide"] < x - 4
                assert beside or y + 4 < one["top"] or one["top"] + one["high"] < y - 4


def test_narrow_steps_are_drawn_as_one_bar_each(call: Call) -> None:
    steps = [[3 * at, 3 * at + 2.5] for at in range(40)]
    grain = {"from": [one for one, _ in steps], "to": [other for _, other in steps]}
    script = """([camera, grain]) => Array.from({ length: 120 }, (_, at) => stretchOfColumn(camera, 120, at, grain))"""
    columns = call("camera", "stretchOfColumn", script, [{"x0": 0, "x1": 120}, grain])
    for at, (left, right) in enumerate(columns):
        touched = [step for step in steps if step[0] < at + 1 and step[1] > at]
        assert left == min(at, *(start for start, _ in touched), at)
        assert right == max(at + 1, *(end for _, end in touched), at + 1)


@pytest.mark.parametrize("wide", [12, 30, 44])
def test_every_nth_step_is_named(call: Call, wide: int) -> None:
    for apart in (0.3, 2.5, 7, 13, 100):
        every = call("around", "namedEvery", "([apart, wide]) => namedEvery(apart, wide)", [apart, wide])
        assert apart * every >= wide
        assert str(every)[0] in "125"
        assert every == 1 or apart * every < wide * 2.6
