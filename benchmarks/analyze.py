"""What the whole report of a long history costs, from the file to the text on the terminal.

    python benchmarks/analyze.py [--events 1000000] [--runs 5] [--no-write]

The snapshot is the one of `benchmarks/load.py`. The report (attribution, steps, allocator replay, findings, text)
stands beside `pickle.load` of the same file in the same round; each measurement is a process of its own. The table is
written to `benchmarks/results/analyze-<date>.md`. Exit status 1 says that a target was missed.
"""

from __future__ import annotations

import argparse
import datetime
import os
import platform
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from load import COLUMNS, RESULTS, ROOT, SNAPSHOT, Comparison, compare, write_inputs

WHOLE = Comparison(
    title="snapshot: the whole report",
    file="snapshot.pickle",
    what="report",
    parser="pickle.load",
    max_time_ratio=3.5,
    max_memory_ratio=4.0,
)


def main(arguments: Sequence[str]) -> int:
    """Measure, print the table and write it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--no-write", action="store_true", help="print only")
    options = parser.parse_args(arguments)
    if not SNAPSHOT.exists():
        print(f"skipped: the real recordings are not at {SNAPSHOT.relative_to(ROOT.parent)} beside the checkout")
        return 0
    with tempfile.TemporaryDirectory() as folder:
        write_inputs(Path(folder), options.events, trace_too=False)
        row, met = compare(WHOLE, Path(folder), options.runs)
    today = datetime.date.today().isoformat()
    lines = [
        f"# The whole report, {today}",
        "",
        f"{options.events:,} events, {SNAPSHOT.stem} repeated. Medians of {options.runs} rounds (and the range of",
        "ratios); a process for each measurement; the clock starts when the code is imported.",
        f"Python {platform.python_version()}, {platform.system()} {platform.machine()}, {os.cpu_count()} cores.",
        "",
        f"| {' | '.join(COLUMNS)} |",
        "|---" * len(COLUMNS) + "|",
        row,
        "",
    ]
    print("\n".join(lines))
    if not options.no_write:
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / f"analyze-{today}.md").write_text("\n".join(lines), encoding="utf-8")
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
