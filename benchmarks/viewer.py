"""How fast the page of a report opens and draws every allocation, in a headless browser without a GPU.

    python benchmarks/viewer.py [--events 1000000] [--frames 200] [--no-write]

The history is that of `benchmarks/load.py`, repeated, with times drawn at random; and a real training step as it is.
For each the page is opened at the overview, the timeline and the map. A frame is the time from an input event to the
return of a one-pixel readPixels behind the drawing, over scripted pans and zooms at three levels.
"Every allocation drawn" is checked by zooming to 1,000 random ones and picking their middle.

Beside each figure stands the same for a page that unpacks the same columns and draws nothing, or clears a canvas of the
same size: what is left is memtrace's share. Where WebGL2 is only emulated, as here, the page draws on a 2D canvas; the
frames of the emulated one stand in a row of their own. Below stand the sizes of the pages that torch's memory_viz makes
of the same snapshot, and memray of as many allocations, where they are installed: torch's page loads its script off the
network, so that it cannot be timed here. Exit status 1 says that a target was missed.
"""

from __future__ import annotations

import argparse
import datetime
import os
import platform
import random
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

ROOT = Path(__file__).parent.parent
RESULTS = Path(__file__).parent / "results"
sys.path.insert(0, str(ROOT))

from benchmarks.load import SNAPSHOT, write_inputs  # noqa: E402
from memtrace.analysis.report import analyze  # noqa: E402
from memtrace.report.page.assets import joined_modules  # noqa: E402
from memtrace.report.page.report import render_html  # noqa: E402
from memtrace.store.reading.read import read_trace  # noqa: E402
from tests.find_browser import FLAGS, installed_browser  # noqa: E402

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

TRAINING = SNAPSHOT.parent / "gpt-medium-512-train-warm-step-unsplit-live-blocks.pickle"
MIB = 2**20
NUM_PICKED = 1000

FIRST_PAINT = """() => new Promise((resolve) => {
    const entry = () => performance.getEntriesByName("first-contentful-paint")[0];
    const look = () => (entry() ? resolve(entry().startTime) : requestAnimationFrame(look));
    look();
})"""

PICKS = """rows => rows.filter((row) => {
    const { data, pickCenter } = memtrace.map;
    return data.inUseEnd[row] > data.start[row] && pickCenter(row) !== row;
}).length"""

# Turns of the wheel at three levels of zoom; the time until one pixel could be read back behind the drawing.
FRAMES = """async ({ count, clears, part }) => {
    const map = memtrace[part];
    const surface = document.getElementById(`${part}-surface`);
    const box = surface.getBoundingClientRect();
    const { width, height } = map.drawn;
    const canvas = Object.assign(document.createElement("canvas"), { width, height });
    const context = clears ? canvas.getContext("2d", { alpha: false }) : null;
    if (clears) surface.append(canvas);
    const whole = map.camera();
    const times = [];
    const nextFrame = () => new Promise((resolve) => requestAnimationFrame(resolve));
    const read = () => {
        if (!clears) return map.readPixel(5, 5);
        context.fillStyle = `hsl(${times.length} 50% 50%)`;
        context.fillRect(0, 0, width, height);
        context.getImageData(5, 5, 1, 1);
    };
    const wheel = (x, more) => {
        const place = { clientX: box.left + x, clientY: box.top + 200, bubbles: true, cancelable: true };
        return new WheelEvent("wheel", { ...place, ...more });
    };
    for (const level of [1, 0.05, 0.002]) {
        const wide = (whole.x1 - whole.x0) * level;
        const from = whole.x0 + (whole.x1 - whole.x0 - wide) * 0.37;
        map.moveTo({ ...whole, x0: from, x1: from + wide });
        for (let turn = 0; turn < count / 3; turn += 1) {
            const start = performance.now();
            const zooms = turn % 2 === 1;
            const [one, other] = zooms ? [{ deltaY: 60 }, { deltaY: -60 }] : [{ deltaX: 40 }, { deltaX: -40 }];
            const event = wheel(zooms ? 200 + (turn % 17) * 30 : 400, turn % 4 < 2 ? one : other);
            surface.dispatchEvent(event);
            await nextFrame();
            read();
            times.push(performance.now() - start);
        }
    }
    return times;
}"""

UNPACKS_ONLY = """<!DOCTYPE html><html><body>{elements}
<script type="module">{modules}
const view = JSON.parse(document.getElementById("data").textContent).ranks[0].map;
loadMap(0, view, () => {{}}).then((data) => {{
    globalThis.kept = data;
    document.documentElement.dataset.map = "ready";
}});
</script></body></html>"""


@dataclass(frozen=True, kw_only=True)
class Targets:
    """What a history must reach, seconds and milliseconds."""

    size_mb: float
    paint_s: float
    open_s: float
    """Timeline and map, each."""
    frame_ms: float


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What was measured of one page."""

    paint_s: float
    timeline_s: float
    map_s: float
    p95_ms: float
    timeline_p95_ms: float
    """The same on the timeline."""
    median_ms: float
    address_p95_ms: float
    """The same in the layout by address."""
    emulated_p95_ms: float
    """The same drawn by WebGL2, which the processor emulates here; the page passes that over."""
    clear_p95_ms: float
    """Clearing a canvas of the same size, in the same rhythm."""
    rss_mib: float
    missed: int


def big_page(folder: Path, num_events: int) -> tuple[str, int]:
    """Return the page of the repeated history and its number of allocations."""
    write_inputs(folder, num_events, trace_too=False)
    trace = read_trace(folder / "snapshot.pickle")
    times = trace.ranks[0].table("events")["time_ns"]
    draw = random.Random(1)
    now = int(times[0])
    for at in range(len(times)):
        now += int(draw.expovariate(1 / 20_000))
        times[at] = now
    report = analyze(trace, with_map=True)
    found = report.ranks[0].allocation_map
    assert found is not None
    return render_html(report), len(found.start)


def unpacking_page(page: str) -> str:
    """Return a page that unpacks the columns of another and draws nothing."""
    elements = re.findall(
        r'<script type="(?:application/json|text/plain)" id="(?:data|map-0|worker)">.*?</script>', page, re.S
    )
    return UNPACKS_ONLY.format(elements="\n".join(elements), modules=joined_modules("mapload"))


def open_page(browser: Browser, path: Path, hash_text: str, ready: str) -> tuple[Page, float]:
    """Return an opened page and the seconds until it was ready."""
    page = browser.new_context(viewport={"width": 1280, "height": 900}).new_page()
    start = time.perf_counter()
    page.goto(path.as_uri() + hash_text, wait_until="commit")
    page.wait_for_selector(f"html[data-{ready}]:not([data-{ready}=false])", timeout=120_000)
    return page, time.perf_counter() - start


def renderer_rss_mib() -> float:
    """Return the largest peak of resident memory of the renderer processes that this process started."""
    parents, peaks = {}, {}
    for entry in Path("/proc").iterdir():
        try:
            status = (entry / "status").read_text() if entry.name.isdigit() else ""
            fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
            if fields:
                parents[int(entry.name)] = int(fields["PPid"])
                if b"--type=renderer" in (entry / "cmdline").read_bytes():
                    peaks[int(entry.name)] = int(fields["VmHWM"].split()[0]) / 1024
        except (OSError, KeyError):
            continue
    return max((peak for process, peak in peaks.items() if _is_ours(process, parents)), default=0.0)


def _is_ours(process: int, parents: dict[int, int]) -> bool:
    while process in parents and process > 1:
        if process == os.getpid():
            return True
        process = parents[process]
    return False


def measure(browser: Browser, path: Path, num_frames: int, num_allocations: int) -> Measured:
    """Return what a page reaches."""
    overview, _ = open_page(browser, path, "", "ready")
    paint_s = overview.evaluate(FIRST_PAINT) / 1000
    overview.context.close()
    page, timeline_s = open_page(browser, path, "#view=timeline&axis=event", "timeline")
    on_timeline = page.evaluate(FRAMES, {"count": num_frames, "clears": False, "part": "timeline"})
    page.context.close()
    page, map_s = open_page(browser, path, "#view=map&axis=event", "map")
    times = page.evaluate(FRAMES, {"count": num_frames, "clears": False, "part": "map"})
    rss = renderer_rss_mib()
    rows = random.Random(2).sample(range(num_allocations), min(NUM_PICKED, num_allocations))
    missed = page.evaluate(PICKS, rows)
    no_map = FRAMES.replace("map.moveTo({", "void ({").replace("surface.dispatchEvent", "void ")
    clears = page.evaluate(no_map, {"count": num_frames, "clears": True, "part": "map"})
    page.context.close()
    others = []
    for layout in ("layout=address", "painter=webgl2"):
        page, _ = open_page(browser, path, f"#view=map&axis=event&{layout}", "map")
        found = page.evaluate(FRAMES, {"count": num_frames, "clears": False, "part": "map"})
        others.append(_p95(found))
        page.context.close()
    return Measured(
        paint_s=paint_s,
        timeline_s=timeline_s,
        map_s=map_s,
        timeline_p95_ms=_p95(on_timeline),
        p95_ms=_p95(times),
        median_ms=statistics.median(times),
        address_p95_ms=others[0],
        emulated_p95_ms=others[1],
        clear_p95_ms=_p95(clears),
        rss_mib=rss,
        missed=missed,
    )


def measure_unpacking(browser: Browser, path: Path) -> tuple[float, float]:
    """Return the seconds and the memory of a page that unpacks and draws nothing."""
    page, seconds = open_page(browser, path, "", "map")
    rss = renderer_rss_mib()
    page.context.close()
    return seconds, rss


def _p95(times: Sequence[float]) -> float:
    return statistics.quantiles(times, n=20)[-1]


def rows_of(
    browser: Browser, folder: Path, name: str, html: str, count: int, targets: Targets, frames: int
) -> tuple[list[str], bool]:
    """Return the rows of the table for one history, and whether every target was met."""
    path, bare = folder / "page.html", folder / "bare.html"
    path.write_text(html, encoding="utf-8")
    bare.write_text(unpacking_page(html), encoding="utf-8")
    bare_s, bare_rss = measure_unpacking(browser, bare)
    found = measure(browser, path, frames, count)
    size = len(html.encode()) / 1e6
    checks: list[tuple[str, float, float | None, float | None, str]] = [
        ("HTML file", size, targets.size_mb, None, "MB"),
        ("first paint of the overview", found.paint_s, targets.paint_s, None, "s"),
        ("every event on the timeline", found.timeline_s, targets.open_s, bare_s, "s"),
        ("every allocation on the map", found.map_s, targets.open_s, bare_s, "s"),
        ("frame of the timeline, p95", found.timeline_p95_ms, targets.frame_ms, found.clear_p95_ms, "ms"),
        ("frame, p95", found.p95_ms, targets.frame_ms, found.clear_p95_ms, "ms"),
        ("frame, median", found.median_ms, None, None, "ms"),
        ("frame by address, p95", found.address_p95_ms, targets.frame_ms, found.clear_p95_ms, "ms"),
        ("frame with emulated WebGL2, p95", found.emulated_p95_ms, None, found.clear_p95_ms, "ms"),
        ("renderer, peak RSS", found.rss_mib, 1536.0, bare_rss, "MiB"),
        (f"not found of {min(NUM_PICKED, count):,} picked", float(found.missed), 0.0, None, ""),
    ]
    rows = []
    for what, value, target, baseline, unit in checks:
        met = "–" if target is None else "yes" if value <= target else "NO"
        beside = "–" if baseline is None else f"{baseline:.3g} {unit}"
        limit = "–" if target is None else f"≤ {target:g} {unit}".strip()
        rows.append(f"| {name} | {what} | {value:.3g} {unit} | {beside} | {limit} | {met} |")
    return rows, not any(row.endswith("| NO |") for row in rows)


def peer_rows(folder: Path, num_allocations: int) -> list[str]:
    """Return what the pages of memory_viz and memray weigh, where the two are installed."""
    rows = []
    history = folder / "memory_viz.html"
    command = [sys.executable, "-m", "torch.cuda._memory_viz", "trace_plot", str(TRAINING), "-o", str(history)]
    if _made(command, history):
        text = history.read_text(encoding="utf-8")
        rows.append(f"| torch memory_viz | {TRAINING.stem} | {len(text) / 1e6:.3g} MB | {_is_offline(text)} |")
    recording, page = folder / "memray.bin", folder / "memray.html"
    program = f"kept = [bytes(600 + at % 4000) for at in range({num_allocations})]"
    _made([sys.executable, "-m", "memray", "run", "-q", "-o", str(recording), "-c", program], recording)
    for kind, more in (("table", []), ("flamegraph", ["--temporal"])):
        command = [sys.executable, "-m", "memray", kind, "--no-web", *more, "-f", "-o", str(page), str(recording)]
        if recording.exists() and _made(command, page):
            text = page.read_text(encoding="utf-8")
            what = f"{num_allocations:,} allocations of one line"
            rows.append(f"| memray {kind} | {what} | {len(text) / 1e6:.3g} MB | {_is_offline(text)} |")
    return rows or ["| neither torch nor memray is installed | – | – | – |"]


def _made(command: Sequence[str], output: Path) -> bool:
    output.unlink(missing_ok=True)
    subprocess.run(command, capture_output=True, check=False)
    return output.exists()


def _is_offline(text: str) -> str:
    return "no" if re.search(r"""(?:src=|import |from )["']https?://""", text) else "yes"


def main(arguments: Sequence[str]) -> int:
    """Measure, print the table and write it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--frames", type=int, default=200)
    parser.add_argument("--no-write", action="store_true", help="print only")
    options = parser.parse_args(arguments)
    if not SNAPSHOT.exists() or installed_browser() is None:
        print("skipped: it needs the real recordings beside the checkout, and a Chromium")
        return 0
    from playwright.sync_api import sync_playwright

    with tempfile.TemporaryDirectory() as name, sync_playwright() as playwright:
        folder = Path(name)
        big, num_big = big_page(folder, options.events)
        report = analyze(read_trace(TRAINING), with_map=True)
        training = report.ranks[0].allocation_map
        assert training is not None
        browser = playwright.chromium.launch(executable_path=installed_browser(), args=list(FLAGS))
        first, is_good = rows_of(
            browser,
            folder,
            f"{options.events:,} events, {num_big:,} allocations",
            big,
            num_big,
            Targets(size_mb=30, paint_s=0.3, open_s=2, frame_ms=50),
            options.frames,
        )
        small = f"{training.num_moments:,} events, {len(training.start):,} allocations"
        second, is_good_too = rows_of(
            browser,
            folder,
            small,
            render_html(report),
            len(training.start),
            Targets(size_mb=1, paint_s=0.3, open_s=1, frame_ms=20),
            options.frames,
        )
        peers = peer_rows(folder, len(training.start))
        version = browser.version
        browser.close()
    today = datetime.date.today().isoformat()
    lines = [
        f"# Viewer, {today}",
        "",
        f"Chromium {version}, headless, software rendering. Python {platform.python_version()}, {platform.system()} "
        f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} at the end, "
        f"niceness {os.nice(0)}.",
        f"The first history is {SNAPSHOT.stem} repeated, with times drawn at random; the second is {TRAINING.stem}.",
        '"Beside it" is a page that unpacks the columns and draws nothing; for a frame, clearing a canvas as large.',
        "",
        "| history | what | measured | beside it | target | met |",
        "|---|---|---|---|---|---|",
        *first,
        *second,
        "",
        "Pages of others:",
        "",
        "| page | of what | size | opens without a network |",
        "|---|---|---|---|",
        *peers,
    ]
    print("\n".join(lines))
    if not options.no_write:
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / f"viewer-{today}.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return 0 if is_good and is_good_too else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
