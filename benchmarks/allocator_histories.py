"""Random programs on torch's own allocator, on a GPU that is not there, against the model: every address compared.

    python benchmarks/allocator_histories.py [--programs 140] [--first 0] [--no-write]

Needs torch's CUDA build: `make driverless`, or a Python named in MEMTRACE_DRIVERLESS_PYTHON. Each setting is a process
that runs one program after the other; three fifths of them begin to record when memory is in use already. Programs
allocate and free on two streams, let streams hold blocks back, empty the cache and run out of memory. The table is
written to `benchmarks/results/allocator-histories-<date>.md`. Exit status 1 says that something was not predicted.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from load import finish, machine, today  # noqa: E402

from memtrace.allocator.replay import replay_device  # noqa: E402
from memtrace.driverless.environment import Devices, environment  # noqa: E402
from memtrace.store.reading.read import read_trace  # noqa: E402

LIMITED = 0.006
"""Fraction of the device that a program may have: half a gigabyte, so that some requests fail."""
SETTINGS = (
    (1.0, ""),
    (1.0, "expandable_segments:True"),
    (1.0, "expandable_segments:True,roundup_power2_divisions:4"),
    (1.0, "max_split_size_mb:32"),
    (1.0, "roundup_power2_divisions:[1:4,>:8]"),
    (1.0, "roundup_power2_divisions:4"),
    (1.0, "max_split_size_mb:64,max_non_split_rounding_mb:40"),
    (1.0, "large_segment_size_mb:12"),
    (1.0, "expandable_segments:True,large_segment_size_mb:40"),
    (LIMITED, ""),
    (LIMITED, "garbage_collection_threshold:0.6"),
    (LIMITED, "max_split_size_mb:32"),
    (LIMITED, "expandable_segments:True"),
    (LIMITED, "expandable_segments:True,garbage_collection_threshold:0.6"),
    (LIMITED, "max_split_size_mb:32,garbage_collection_threshold:0.8"),
)
PROGRAM = """
import pickle, random, sys, torch
folder, first, last, fraction = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])
SIZES = [1, 700, 70_000, 2**20, 2**20 + 1, 3 * 2**20, 9 * 2**20, 12 * 2**20, 19 * 2**20, 47 * 2**20]
def record(on):
    how = {"max_entries": 1_000_000, "stacks": "python"} if on else {"enabled": None}
    torch.cuda.memory._record_memory_history(**how)
def run(seed):
    choose = random.Random(seed)
    late, side, live = choose.random() < 0.6, torch.cuda.Stream(), []
    length = choose.choice([200, 400, 800])
    start = choose.randrange(length // 4, length * 3 // 4) if late else 0
    on_side, held, emptied = choose.choice([0, 0.2]), choose.choice([0, 0.1, 0.3]), choose.choice([0, 0.01, 0.03])
    for at in range(length):
        if at == start:
            record(True)
        if choose.random() < (0.7 if at % 200 < 100 else 0.35):
            size = choose.choice(SIZES) + 512 * choose.randrange(900) * (choose.random() < 0.5)
            with torch.cuda.stream(side if choose.random() < on_side else torch.cuda.current_stream()):
                try:
                    live.append(torch.empty(size, dtype=torch.uint8, device="cuda"))
                except torch.cuda.OutOfMemoryError:
                    live = live[::2]
        elif live:
            tensor = live.pop(choose.randrange(len(live)))
            if choose.random() < held:
                tensor.record_stream(side)
            del tensor
        if choose.random() < emptied:
            torch.cuda.empty_cache()
    with open(f"{folder}/{seed}.pickle", "wb") as file:
        pickle.dump(torch.cuda.memory._snapshot(), file)
    record(False)
    live.clear()
    torch.cuda.synchronize()
    torch.cuda.empty_cache()
torch.cuda.init()
if fraction < 1:
    torch.cuda.set_per_process_memory_fraction(fraction)
for seed in range(first, last):
    run(seed)
"""


def main(arguments: Sequence[str]) -> int:
    """Compare, print the table and write it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--programs", type=int, default=140, help="how many under each setting")
    parser.add_argument("--first", type=int, default=0, help="seed of the first program")
    parser.add_argument("--no-write", action="store_true", help="print only")
    options = parser.parse_args(arguments)
    python = Path(os.environ.get("MEMTRACE_DRIVERLESS_PYTHON", ROOT / ".venv-driverless" / "bin" / "python"))
    if not python.exists():
        print(f"skipped: no torch for CUDA at {python}; `make driverless` installs it")
        return 0
    rows, all_exact = [], True
    for fraction, conf in SETTINGS:
        row, is_exact = _row(python, conf, fraction, options.first, options.programs)
        rows.append(row)
        all_exact = all_exact and is_exact
    lines = [
        f"# Random programs on torch's own allocator, {today()}",
        "",
        f"{options.programs} programs under each setting, seeds from {options.first}, without a GPU. Exact: every",
        "address and every segment event follows from the model, but for the addresses that told the size of a block.",
        machine(),
        "",
        "| setting | memory | exact | addresses | segment events | inferred |",
        "|---|---|--:|--:|--:|--:|",
        *rows,
        "",
    ]
    finish("allocator-histories", lines, no_write=options.no_write)
    return 0 if all_exact else 1


def _row(python: Path, conf: str, fraction: float, first: int, num_programs: int) -> tuple[str, bool]:
    """Return a row of the table, and whether all programs under a setting were predicted."""
    added = environment(Devices(), python=str(python))
    added |= {"PYTORCH_CUDA_ALLOC_CONF": conf, "PYTORCH_ALLOC_CONF": conf}
    exact = 0
    sums = [0, 0, 0, 0, 0]
    with tempfile.TemporaryDirectory() as folder:
        command = [str(python), "-c", PROGRAM, folder, str(first), str(first + num_programs), str(fraction)]
        subprocess.run(command, env={**os.environ, **added}, check=True)
        for path in sorted(Path(folder).glob("*.pickle"), key=lambda one: int(one.stem)):
            one = replay_device(read_trace(path).ranks[0], "cuda:0").fidelity
            exact += one.is_exact
            if not one.is_exact:
                print(f"{conf or 'default'}, program {path.stem}: {one.first_divergence or one.reason}")
            figures = (one.allocations_matched, one.allocations, one.segment_events_matched, one.segment_events)
            sums = [a + b for a, b in zip(sums, (*figures, one.num_inferred_blocks), strict=True)]
    memory = "limited" if fraction < 1 else "all"
    row = (
        f"| {f'`{conf}`' if conf else 'default'} | {memory} | {exact} of {num_programs} | "
        f"{sums[0]:,} of {sums[1]:,} | {sums[2]:,} of {sums[3]:,} | {sums[4]} |"
    )
    return row, exact == num_programs


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
