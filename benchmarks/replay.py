"""How long the replay of a history takes, against `pickle.load` of the same file, and whether it is linear.

    python benchmarks/replay.py [--events 1000000] [--runs 5] [--no-write]

A real history is repeated as in `benchmarks/load.py`. Each measurement is a process of its own; the replay alone is
timed, not the reading before it. Replay and parser alternate, and the median of the ratios of a round counts, so that a
busy machine slows both. The table is written to `benchmarks/results/replay-<date>.md`. Exit status 1 says that a target
was missed.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.load import SNAPSHOT, finish, machine, parse_options, today, write_inputs  # noqa: E402

MAX_RATIO = 1.2
"""Replay alone, as a multiple of `pickle.load` of the same file."""
MAX_SLOPE = 1.2
"""By which factor ten times the events may take more than ten times as long."""

MEASURE = """
import json, sys, time
what, path = sys.argv[1:]
matched = None
if what == "pickle.load":
    import pickle
    start = time.perf_counter()
    data = pickle.load(open(path, "rb"))
else:
    from memtrace.allocator import replay as replaying
    from memtrace.allocator.replay import replay_device
    if what == "replay each event":
        replaying.find_repeat = lambda history: None
    from memtrace.store.reading.read import read_trace
    rank = read_trace(path).ranks[0]
    start = time.perf_counter()
    fidelity = replay_device(rank, "cuda:0").fidelity
    matched = [fidelity.allocations_matched, fidelity.allocations]
print(json.dumps([time.perf_counter() - start, matched]))
"""


def measure(what: str, path: Path) -> tuple[float, list[int] | None]:
    """Return seconds, and for a replay how many allocations it matched of how many, in a process of its own."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", MEASURE, what, str(path)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    seconds, matched = json.loads(done.stdout)
    return seconds, matched


def main(arguments: Sequence[str]) -> int:
    """Measure, print the table and write it."""
    options = parse_options(__doc__, arguments)
    if options is None:
        return 0
    with tempfile.TemporaryDirectory() as folder:
        paths = {}
        for name, events in (("all", options.events), ("tenth", options.events // 10)):
            (Path(folder) / name).mkdir()
            write_inputs(Path(folder) / name, events, trace_too=False)
            paths[name] = Path(folder) / name / "snapshot.pickle"
        rounds = [
            (
                measure("pickle.load", paths["all"])[0],
                *measure("replay", paths["all"]),
                measure("replay", paths["tenth"])[0],
            )
            for _ in range(options.runs)
        ]
    loads, replays, matches, tenths = zip(*rounds, strict=True)
    ratios = [replay / load for load, replay in zip(loads, replays, strict=True)]
    slopes = [replay / tenth / 10 for replay, tenth in zip(replays, tenths, strict=True)]
    ratio, slope, seconds = statistics.median(ratios), statistics.median(slopes), statistics.median(replays)
    met = ratio <= MAX_RATIO, slope <= MAX_SLOPE
    matched, allocations = matches[0] or (0, 0)
    lines = [
        f"# Replay, {today()}",
        "",
        f"{options.events:,} events, {SNAPSHOT.stem} repeated; {matched:,} of {allocations:,} addresses reproduced.",
        f"Medians of {options.runs} rounds (and the range of ratios); a process for each measurement.",
        machine(),
        "",
        "| what | measured | target | met |",
        "|---|---|---|---|",
        f"| `pickle.load` of the file | {statistics.median(loads):.2f} s | – | – |",
        f"| replay alone | {seconds:.2f} s, {options.events / seconds:,.0f} events a second | – | – |",
        f"| replay ÷ `pickle.load` | {ratio:.2f}× ({min(ratios):.2f}–{max(ratios):.2f}) | ≤ {MAX_RATIO}× | "
        f"{'yes' if met[0] else 'NO'} |",
        f"| all events ÷ (10 × a tenth of them) | {slope:.2f}× ({min(slopes):.2f}–{max(slopes):.2f}) | "
        f"≤ {MAX_SLOPE}× | {'yes' if met[1] else 'NO'} |",
        "",
    ]
    finish("replay", lines, no_write=options.no_write)
    return 0 if all(met) and matched == allocations else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
