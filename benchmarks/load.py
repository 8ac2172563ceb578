"""How long and how much memory reading takes, against the parser underneath it.

    python benchmarks/load.py [--events 1000000] [--runs 5] [--no-write]

A real snapshot's history is repeated (every event a dict of its own with a time of its own, frames shared, as torch
writes it), and saved as a pickle and as a trace.json. Each measurement is a process of its own. Every reading stands
beside the parser alone in the same round, and the median of the ratios counts, so that a busy machine slows both.
The table is written to `benchmarks/results/load-<date>.md`. Exit status 1 says that a target was missed.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import pickle
import platform
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
SNAPSHOT = ROOT.parent / "shared" / "data" / "snapshots" / "gpt-forward-warm-nets-to-zero.pickle"
RESULTS = Path(__file__).parent / "results"

MEASURE = """
import json, sys, time
what, path = sys.argv[1:]
# The code is imported before the clock starts: its time is that of start-up, not of reading. Its memory counts.
if what == "pickle.load":
    import pickle
    work = lambda: pickle.load(open(path, "rb"))
elif what == "pickle.load without gc":
    import gc, pickle
    gc.disable()
    work = lambda: pickle.load(open(path, "rb"))
elif what == "orjson.loads":
    import orjson
    work = lambda: orjson.loads(open(path, "rb").read())
elif what == "read":
    from memtrace.store.reading.read import read_trace
    work = lambda: read_trace(path)
elif what == "read and summarise":
    from memtrace.analysis.report import analyze
    from memtrace.store.reading.read import read_trace
    work = lambda: analyze(read_trace(path))
else:
    from memtrace.allocator import replay
    from memtrace.analysis.report import analyze
    from memtrace.report.terminal.report import render_text
    if what == "report, each event replayed":
        replay.find_repeat = lambda history: None
    from memtrace.store.reading.read import read_trace
    work = lambda: render_text(analyze(read_trace(path)))
start = time.perf_counter()
result = work()
seconds = time.perf_counter() - start
# Not getrusage, whose figure a child inherits from the process that started it.
peak = next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(json.dumps([seconds, peak]))
"""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """One reading against its parser."""

    title: str
    file: str
    """Which of the two files is read."""
    what: str
    parser: str
    max_time_ratio: float
    max_memory_ratio: float | None
    """None where only time has a target."""


COMPARISONS = (
    Comparison(
        title="snapshot: read and summarise",
        file="snapshot.pickle",
        what="read and summarise",
        parser="pickle.load",
        max_time_ratio=2.5,
        max_memory_ratio=3.0,
    ),
    Comparison(
        title="snapshot: read",
        file="snapshot.pickle",
        what="read",
        parser="pickle.load",
        max_time_ratio=2.5,
        max_memory_ratio=3.0,
    ),
    Comparison(
        title="trace.json: read",
        file="trace.json",
        what="read",
        parser="orjson.loads",
        max_time_ratio=2.5,
        max_memory_ratio=None,
    ),
)


COLUMNS = (
    "what",
    "parser alone",
    "memtrace",
    "time ratio",
    "target",
    "parser peak RSS",
    "memtrace peak RSS",
    "ratio",
    "target",
    "met",
)
"""Headings of the row that `compare` returns."""


def write_inputs(folder: Path, num_events: int, *, trace_too: bool = True) -> None:
    """Write the snapshot to read and, if wanted, the trace.json of it."""
    sys.path.insert(0, str(ROOT))
    from memtrace.store.reading.read import read_trace
    from memtrace.store.writing.trace import write_trace

    # This one file is ours to trust: it is checked in the tests to hold plain data.
    data = pickle.loads(SNAPSHOT.read_bytes())
    number, history = next((at, one) for at, one in enumerate(data["device_traces"]) if one)
    span_us = history[-1]["time_us"] - history[0]["time_us"] + 1
    repeated = []
    for at in range(num_events):
        turn, place = divmod(at, len(history))
        repeated.append({**history[place], "time_us": history[place]["time_us"] + turn * span_us})
    data["device_traces"][number] = repeated
    with (folder / "snapshot.pickle").open("wb") as file:
        pickle.dump(data, file, protocol=4)
    if trace_too:
        write_trace(read_trace(folder / "snapshot.pickle"), folder / "trace.json")


def measure(what: str, path: Path) -> tuple[float, int]:
    """Return seconds and peak bytes of one piece of work in a process of its own."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", MEASURE, what, str(path)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    seconds, peak_bytes = json.loads(done.stdout)
    return seconds, peak_bytes


def compare(comparison: Comparison, folder: Path, num_runs: int) -> tuple[str, bool]:
    """Return a row of the table, and whether the targets are met."""
    path = folder / comparison.file
    rounds = [(measure(comparison.parser, path), measure(comparison.what, path)) for _ in range(num_runs)]
    times = [ours[0] / parser[0] for parser, ours in rounds]
    memories = [ours[1] / parser[1] for parser, ours in rounds]
    time_ratio, memory_ratio = statistics.median(times), statistics.median(memories)
    met = time_ratio <= comparison.max_time_ratio
    met = met and (comparison.max_memory_ratio is None or memory_ratio <= comparison.max_memory_ratio)
    parser_s, ours_s = (statistics.median(one[at][0] for one in rounds) for at in (0, 1))
    parser_mib, ours_mib = (statistics.median(one[at][1] for one in rounds) / 2**20 for at in (0, 1))
    memory_target = "–" if comparison.max_memory_ratio is None else f"≤ {comparison.max_memory_ratio:g}×"
    row = (
        f"| {comparison.title} | {comparison.parser} {parser_s:.2f} s | {ours_s:.2f} s | {time_ratio:.2f}× "
        f"({min(times):.2f}–{max(times):.2f}) | ≤ {comparison.max_time_ratio:g}× | {parser_mib:.0f} MiB | "
        f"{ours_mib:.0f} MiB | {memory_ratio:.2f}× | {memory_target} | {'yes' if met else 'NO'} |"
    )
    return row, met


def parse_options(description: str | None, arguments: Sequence[str]) -> argparse.Namespace | None:
    """Return the number of events and of runs, and whether only to print; `None`, saying so, without the recordings."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--no-write", action="store_true", help="print only")
    options = parser.parse_args(arguments)
    if not SNAPSHOT.exists():
        print(f"skipped: the real recordings are not at {SNAPSHOT.relative_to(ROOT.parent)} beside the checkout")
        return None
    return options


def today() -> str:
    """Return the date of a result."""
    return datetime.date.today().isoformat()


def machine() -> str:
    """Return Python and the machine in a line."""
    return f"Python {platform.python_version()}, {platform.system()} {platform.machine()}, {os.cpu_count()} cores."


def finish(name: str, lines: Sequence[str], *, no_write: bool) -> None:
    """Print the lines and, unless told not to, write them as the result of a benchmark."""
    print("\n".join(lines))
    if not no_write:
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / f"{name}-{today()}.md").write_text("\n".join(lines), encoding="utf-8")


def main(arguments: Sequence[str]) -> int:
    """Measure, print the table and write it."""
    options = parse_options(__doc__, arguments)
    if options is None:
        return 0
    with tempfile.TemporaryDirectory() as folder:
        write_inputs(Path(folder), options.events)
        sizes = {name: (Path(folder) / name).stat().st_size / 2**20 for name in ("snapshot.pickle", "trace.json")}
        rows = [compare(comparison, Path(folder), options.runs) for comparison in COMPARISONS]
    about = f"{options.events:,} events, {SNAPSHOT.stem} repeated"
    lines = [
        f"# Loading, {today()}",
        "",
        f"{about}: snapshot {sizes['snapshot.pickle']:.0f} MiB, trace.json {sizes['trace.json']:.0f} MiB.",
        f"Medians of {options.runs} rounds (and the range of ratios); a process for each measurement.",
        machine(),
        "",
        f"| {' | '.join(COLUMNS)} |",
        "|---" * len(COLUMNS) + "|",
        *(row for row, _ in rows),
        "",
    ]
    finish("load", lines, no_write=options.no_write)
    return 0 if all(met for _, met in rows) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
