"""What `memtrace whatif` says of other settings and capacities, against the program really run with them.

    python benchmarks/what_if.py [--only WORD] [--no-write]

Run it with a Python whose torch is built for CUDA; the devices are stand-ins (docs/driverless.md), so it needs no GPU.
Each program is recorded once as it is. From that recording alone whatif says what the allocator reserves at most under
each setting, and whether each capacity is enough. Then the program runs again with that setting, or on a device of that
size, and what torch's own allocator reserved, or whether it ran out of memory, stands beside it. Capacities lie between
what the program asks for and what it reserves: where an allocator is put to it. The table goes to
`benchmarks/results/what-if-driverless-<date>.md`. Exit status 1: something is not as it was said.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from memtrace.driverless.environment import Devices, environment  # noqa: E402
from memtrace.driverless.torch_build import torch_of  # noqa: E402
from memtrace.units import format_bytes  # noqa: E402

RESULTS = ROOT / "benchmarks" / "results"
GPU, CONTEXT_BYTES, MIB = "a100-40gb", 512 * 2**20, 2**20
PROGRAMS = {
    "gpt": "samples/train_gpt.py --hidden 256 --layers 4 --sequence 256",
    "gpt, accumulation, autocast": "samples/train_gpt.py --hidden 256 --layers 4 --accumulation 3 --precision bf16",
    "gpt, attention written out": "samples/train_gpt.py --hidden 192 --layers 4 --attention explicit --optimizer sgd",
    "gpt, recomputed": "samples/train_gpt.py --hidden 384 --layers 4 --sequence 256 --checkpointing",
    "resnet": "samples/train_resnet.py --width 32 --micro-batch 64",
    "chunks kept in pieces": "samples/fragmented.py --chunks 24",
    "foreach peak": "samples/foreach_peak.py",
    "large logits": "samples/big_logits.py",
}
"""Each with a few steps."""
SETTINGS = (
    "expandable_segments:True",
    "max_split_size_mb:32",
    "roundup_power2_divisions:4",
    "garbage_collection_threshold:0.6",
    "large_segment_size_mb:40",
    "expandable_segments:True,roundup_power2_divisions:8",
)
SHARES = (0.25, 0.6, 0.9)
"""Capacities, as shares of the way from what is allocated at the peak to what is reserved."""
NEEDS_LIMIT = "garbage_collection_threshold"
"""A setting that does nothing as long as nothing limits what torch may take."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """What was said of one run that was then made."""

    program: str
    setting: str
    capacity: int | None
    said: int
    """Most that is reserved, in bytes."""
    said_fits: bool
    found: int
    """The same, as torch's allocator had it."""
    found_fits: bool

    @property
    def is_exact(self) -> bool:
        """Whether it was as it was said; what a run that ends early had reserved until then is no promise."""
        return self.said_fits == self.found_fits and (not self.found_fits or self.said == self.found)

    def row(self) -> str:
        """Return the row of the table."""
        limit = "–" if self.capacity is None else format_bytes(self.capacity)
        cells = [self.program, f"`{self.setting}`" if self.setting else "default", limit]
        cells += [_outcome(self.said, self.said_fits), _outcome(self.found, self.found_fits)]
        off = "exact" if self.is_exact else f"{self.said - self.found:+,} B"
        return f"| {' | '.join([*cells, off])} |"


def _outcome(reserved: int, fits: bool) -> str:
    return f"{reserved:,}" if fits else "out of memory"


class Laboratory:
    """Runs programs on stand-ins for GPUs, recorded."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._number = 0

    def record(self, program: str, setting: str = "", capacity: int | None = None) -> Path:
        """Return the recording of a program under a setting, where torch can take `capacity` bytes."""
        self._number += 1
        trace = self._folder / f"{self._number}.json"
        memory = None if capacity is None else capacity + CONTEXT_BYTES
        described = Devices(gpu=GPU, context_bytes=CONTEXT_BYTES, memory_bytes=memory)
        added = {**environment(described), **({"PYTORCH_CUDA_ALLOC_CONF": setting} if setting else {})}
        command = [sys.executable, "-m", "memtrace", "record", "--steps", "1-", "-o", str(trace), "--", sys.executable]
        command += [*PROGRAMS[program].split(), "--device", "cuda", "--steps", "3"]
        inherited = {name: value for name, value in os.environ.items() if "ALLOC_CONF" not in name}
        done = subprocess.run(
            command, env={**inherited, "PYTHONPATH": str(ROOT), **added}, cwd=ROOT, capture_output=True, text=True
        )
        if not trace.is_file() or (done.returncode and "OutOfMemoryError" not in done.stderr):
            raise RuntimeError(f"{program}, {setting or 'default'}: {done.stderr[-2000:]}")
        return trace

    def ask(self, trace: Path, *options: str) -> list[dict[str, Any]]:
        """Return the rows that whatif answers of a trace."""
        command = [sys.executable, "-m", "memtrace", "whatif", str(trace), *options, "--json"]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
        (rank,) = json.loads(done.stdout)["ranks"]
        rows: list[dict[str, Any]] = rank["rows"]
        return rows


def compare(laboratory: Laboratory, program: str) -> Iterator[Compared]:
    """Yield what was said of a program under each setting and capacity, beside what it did."""
    trace = laboratory.record(program)
    before, *_ = laboratory.ask(trace, "--alloc-conf", SETTINGS[0])
    slack = before["max_reserved_bytes"] - before["peak_allocated_bytes"]
    # Torch takes memory in whole pages of 2 MiB, so that a capacity between two of them is one of them.
    limits = [(before["peak_allocated_bytes"] + int(slack * share)) // (2 * MIB) * (2 * MIB) for share in SHARES]
    cases: list[tuple[str, int | None]] = [(one, None) for one in SETTINGS if NEEDS_LIMIT not in one]
    cases += [("", limit) for limit in limits]
    cases += [(one, limits[-1]) for one in SETTINGS if NEEDS_LIMIT in one or one == SETTINGS[0]]
    for setting, capacity in cases:
        asked = ["--alloc-conf", setting] if setting else []
        asked += ["--capacity", f"{capacity // MIB}MiB"] if capacity else []
        said = laboratory.ask(trace, *asked)[-1]
        found, *_ = laboratory.ask(laboratory.record(program, setting, capacity), "--alloc-conf", SETTINGS[0])
        yield Compared(
            program=program,
            setting=setting,
            capacity=capacity,
            said=said["max_reserved_bytes"],
            said_fits=said["fits"],
            found=found["max_reserved_bytes"],
            found_fits=found["fits"],
        )


def document(rows: Sequence[Compared]) -> str:
    """Return the page."""
    today = datetime.date.today().isoformat()
    exact = sum(row.is_exact for row in rows)
    head = "| program | setting | capacity | said, bytes reserved | found | |\n|---|---|--:|--:|--:|---|"
    lines = [
        f"# What-if against the run, on CUDA without a GPU, {today}",
        "",
        f"Made by `benchmarks/what_if.py` with torch {torch_of(sys.executable).version}, as on one {GPU}.",
        f"{exact} of {len(rows)} runs were as said.",
        "",
        head,
        *(row.row() for row in rows),
    ]
    return "\n".join(lines) + "\n"


def main() -> int:
    """Run, write the table, return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="a word that a program's name must hold")
    parser.add_argument("--no-write", action="store_true", help="leave benchmarks/results alone")
    options = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        laboratory = Laboratory(Path(folder))
        for program in PROGRAMS:
            if options.only not in program:
                continue
            for row in compare(laboratory, program):
                rows.append(row)
                print(row.row(), flush=True)
    if not (options.only or options.no_write):
        page = RESULTS / f"what-if-driverless-{datetime.date.today().isoformat()}.md"
        page.write_text(document(rows), encoding="utf-8")
    print(f"{sum(row.is_exact for row in rows)} of {len(rows)} as said")
    return 0 if all(row.is_exact for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
