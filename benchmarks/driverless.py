"""Peaks that others measured on real GPUs against torch's own CUDA build on a GPU that is not there.

Reads `../shared/data/published/gpu_peaks.csv` and runs the programs of those rows for a T4 that say what torch counted
as allocated and reserved. Needs a Python whose torch is built for CUDA, with transformers, peft and torchvision:

    python benchmarks/driverless.py --python .venv-driverless/bin/python [--only resnet50] [--output FILE]
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.published.gpu_peaks import MeasuredPeak, measured_peaks  # noqa: E402
from memtrace.driverless.environment import Devices, environment  # noqa: E402

MIB = 1024**2
T4_CONTEXT_BYTES = 135 * MIB
"""What the rows themselves say: process less reserved."""
RUN = """
import json, runpy, sys, torch
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
print(json.dumps([torch.cuda.max_memory_allocated(), torch.cuda.max_memory_reserved()]))
"""


def rows() -> Iterator[MeasuredPeak]:
    """Yield the rows of the T4 that say what torch counted."""
    return (row for row in measured_peaks() if row.gpu == "T4" and row.allocated_bytes is not None)


def peaks(row: MeasuredPeak, python: str) -> tuple[int, int] | str:
    """Return allocated and reserved bytes of a run, or the last line of its error."""
    added = environment(Devices(gpu="t4-16gb", context_bytes=T4_CONTEXT_BYTES), python=python)
    done = subprocess.run(
        [python, "-W", "ignore", "-c", RUN, *row.command],
        env={**os.environ, **added, "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    said = [line for line in done.stdout.splitlines() if line.startswith("[")]
    if not said:
        return next(reversed(done.stderr.strip().splitlines()), "no word")
    # Its status does not count: a program that ends right after its last backward may abort in torch's own race.
    allocated, reserved = json.loads(said[-1])
    return allocated, reserved


def line_of(row: MeasuredPeak, found: tuple[int, int] | str) -> str:
    """Return a row of the table."""
    if isinstance(found, str):
        return f"| {row.name} | **failed**: {found[:100]} | | | |"
    pairs = zip((row.allocated_bytes, row.reserved_bytes), found, strict=True)
    cells = [f"{true / MIB:,.2f} | {ours / MIB:,.2f} ({100 * (ours - true) / true:+.3f} %)" for true, ours in pairs]
    return f"| {row.name} | {cells[0]} | {cells[1]} |"


def main() -> None:
    """Run the rows and print the table, in MiB."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--python", default=str(ROOT / ".venv-driverless" / "bin" / "python"))
    parser.add_argument("--only", default="", help="rows whose names hold this")
    parser.add_argument("--output", type=Path)
    asked = parser.parse_args()
    lines = [
        "| run on a T4 | allocated, measured | driverless | reserved, measured | driverless |",
        "|---|---|---|---|---|",
    ]
    for row in rows():
        if asked.only in row.name:
            lines.append(line_of(row, peaks(row, asked.python)))
            print(lines[-1], flush=True)
    if asked.output is not None:
        asked.output.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
