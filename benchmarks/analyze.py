"""What the whole report of a long history costs, from the file to the text on the terminal.

    python benchmarks/analyze.py [--events 1360000] [--runs 5] [--no-write]

The history is that of `benchmarks/long_history.py`: torch's own where it can be made. The report (attribution, steps,
allocator replay, findings, text) stands beside `pickle.load` of the same file, with garbage collection off, in the same
round; each measurement is a process of its own. So does the report of the same history with events lost, joined or in
disorder, beside that of the whole one. The tables are written to `benchmarks/results/analyze-<date>.md`. Exit status 1
says that a target was missed.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from load import COLUMNS, Comparison, compare, finish, machine, measure, parse_options, today
from long_history import CHANGES, write_changed, write_history
from replay import measure as measure_replay

WHOLE = Comparison(
    title="snapshot: the whole report",
    file="snapshot.pickle",
    what="report",
    parser="pickle.load without gc",
    max_time_ratio=2.5,
    max_memory_ratio=1.2,
)
LEAST_REPLAYED = 500_000
"""Events that the replay alone takes a second, each of them put through the model."""
MAX_CHANGED = 1.3
"""Report of a history that contradicts the model, as a multiple of that of the whole one, each event replayed."""


def main(arguments: Sequence[str]) -> int:
    """Measure, print the tables and write them."""
    options = parse_options(__doc__, arguments)
    if options is None:
        return 0
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / WHOLE.file
        origin = write_history(path, options.events)
        megabytes = path.stat().st_size / 2**20
        row, met = compare(WHOLE, Path(folder), options.runs)
        replay, replay_met = _replay_rows(path, options.runs, options.events)
        changed, changed_met = _changed_rows(Path(folder), path, options.runs)
    lines = [
        f"# The whole report, {today()}",
        "",
        f"About {options.events:,} events, {megabytes:.0f} MiB: {origin}.",
        f"Medians of {options.runs} rounds (and the range of ratios); a process for each measurement; the clock starts",
        "when the code is imported.",
        machine(),
        "",
        f"| {' | '.join(COLUMNS)} |",
        "|---" * len(COLUMNS) + "|",
        row,
        "",
        "| replay alone | seconds | events a second | target | met |",
        "|---|--:|--:|---|---|",
        *replay,
        "",
        "| history | report | of the whole one | target | met |",
        "|---|--:|--:|---|---|",
        *changed,
        "",
    ]
    finish("analyze", lines, no_write=options.no_write)
    return 0 if met and replay_met and changed_met else 1


def _replay_rows(path: Path, num_runs: int, num_events: int) -> tuple[list[str], bool]:
    """Return a row for each way to replay, and whether the target is met."""
    rows, met = [], True
    for what, name in (("replay", "as reports do"), ("replay each event", "each event put through the model")):
        seconds = statistics.median(measure_replay(what, path)[0] for _ in range(num_runs))
        rate = num_events / seconds
        met = met and rate >= LEAST_REPLAYED
        verdict = "yes" if rate >= LEAST_REPLAYED else "NO"
        rows.append(f"| {name} | {seconds:.2f} | {rate:,.0f} | ≥ {LEAST_REPLAYED:,} | {verdict} |")
    return rows, met


def _changed_rows(folder: Path, path: Path, num_runs: int) -> tuple[list[str], bool]:
    """Return a row for each change, and whether the targets are met."""
    rows, all_met, changed = [], True, folder / "changed.pickle"
    for name, change in CHANGES.items():
        write_changed(changed, path, change)
        rounds = [
            (measure("report, each event replayed", path)[0], measure("report", changed)[0])
            for _ in range(min(num_runs, 3))
        ]
        ratio = statistics.median(ours / whole for whole, ours in rounds)
        met = ratio <= MAX_CHANGED
        all_met = all_met and met
        seconds = statistics.median(ours for _, ours in rounds)
        verdict = "yes" if met else "NO"
        rows.append(f"| {name} | {seconds:.2f} s | {ratio:.2f}× | ≤ {MAX_CHANGED:g}× | {verdict} |")
    return rows, all_met


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
