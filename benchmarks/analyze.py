"""What the whole report of a long history costs, from the file to the text on the terminal.

    python benchmarks/analyze.py [--events 1000000] [--runs 5] [--no-write]

The snapshot is the one of `benchmarks/load.py`. The report (attribution, steps, allocator replay, findings, text)
stands beside `pickle.load` of the same file in the same round; each measurement is a process of its own. The table is
written to `benchmarks/results/analyze-<date>.md`. Exit status 1 says that a target was missed.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from load import COLUMNS, SNAPSHOT, Comparison, compare, finish, machine, parse_options, today, write_inputs

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
    options = parse_options(__doc__, arguments)
    if options is None:
        return 0
    with tempfile.TemporaryDirectory() as folder:
        write_inputs(Path(folder), options.events, trace_too=False)
        row, met = compare(WHOLE, Path(folder), options.runs)
    lines = [
        f"# The whole report, {today()}",
        "",
        f"{options.events:,} events, {SNAPSHOT.stem} repeated. Medians of {options.runs} rounds (and the range of",
        "ratios); a process for each measurement; the clock starts when the code is imported.",
        machine(),
        "",
        f"| {' | '.join(COLUMNS)} |",
        "|---" * len(COLUMNS) + "|",
        row,
        "",
    ]
    finish("analyze", lines, no_write=options.no_write)
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
