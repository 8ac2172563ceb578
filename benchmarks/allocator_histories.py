"""Random programs on torch's own allocator, on a GPU that is not there, against the model: every address compared.

    python benchmarks/allocator_histories.py [--programs 100] [--first 0] [--no-write]

Needs torch's CUDA build: `make driverless`, or a Python named in MEMTRACE_DRIVERLESS_PYTHON. Each setting is a process
that runs one program after the other; three fifths of them begin to record when memory is in use already. Programs
allocate and free on two streams, let streams hold blocks back, empty the cache, run out of memory, capture graphs and
use memory pools; some do so on two devices. The table is written to `benchmarks/results/allocator-histories-<date>.md`.
Exit status 1 says that something was not predicted.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from load import finish, machine, today  # noqa: E402

from memtrace.allocator.replay import replay_device  # noqa: E402
from memtrace.driverless.environment import Devices, environment  # noqa: E402
from memtrace.store.reading.read import read_trace  # noqa: E402

LIMITED = 0.006
"""Fraction of the device that a program may have: half a gigabyte, so that some requests fail."""


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What programs run under: a row of the table."""

    conf: str = ""
    """Text of PYTORCH_ALLOC_CONF."""
    fraction: float = 1.0
    """Share of the device that a program may have."""
    pools: bool = False
    """Whether programs capture graphs and use memory pools."""
    devices: int = 1
    """How many a program allocates on."""

    def __str__(self) -> str:
        return self.conf or "default"

    @property
    def memory(self) -> str:
        """What is special about the memory, in words."""
        words = (["limited"] if self.fraction < 1 else []) + (["private pools"] if self.pools else [])
        return ", ".join(words + ([f"{self.devices} devices"] if self.devices > 1 else [])) or "all"


SETTINGS = (
    Setting(),
    Setting(conf="expandable_segments:True"),
    Setting(conf="expandable_segments:True,roundup_power2_divisions:4"),
    Setting(conf="max_split_size_mb:32"),
    Setting(conf="roundup_power2_divisions:[1:4,>:8]"),
    Setting(conf="roundup_power2_divisions:4"),
    Setting(conf="max_split_size_mb:24,max_non_split_rounding_mb:26"),
    Setting(conf="large_segment_size_mb:12"),
    Setting(conf="expandable_segments:True,large_segment_size_mb:40"),
    Setting(fraction=LIMITED),
    Setting(fraction=LIMITED, conf="garbage_collection_threshold:0.6"),
    Setting(fraction=LIMITED, conf="max_split_size_mb:32"),
    Setting(fraction=LIMITED, conf="expandable_segments:True"),
    Setting(fraction=LIMITED, conf="expandable_segments:True,garbage_collection_threshold:0.6"),
    Setting(fraction=LIMITED, conf="max_split_size_mb:32,garbage_collection_threshold:0.8"),
    Setting(pools=True),
    Setting(pools=True, conf="max_split_size_mb:32"),
    Setting(pools=True, conf="roundup_power2_divisions:4"),
    Setting(devices=2),
    Setting(devices=2, conf="expandable_segments:True"),
    Setting(devices=2, fraction=LIMITED, conf="max_split_size_mb:32"),
)
PROGRAM = """
import pickle, random, sys, warnings, torch
folder, first, last, fraction = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])
has_pools = sys.argv[5] == "True"
SIZES = [1, 700, 70_000, 2**20, 2**20 + 1, 3 * 2**20, 9 * 2**20, 12 * 2**20, 19 * 2**20, 47 * 2**20]
warnings.simplefilter("ignore")
def record(on):
    how = {"max_entries": 1_000_000, "stacks": "python"} if on else {"enabled": None}
    torch.cuda.memory._record_memory_history(**how)
def in_pool(choose):
    kept, is_graph = [], choose.random() < 0.5
    pool = torch.cuda.CUDAGraph() if is_graph else torch.cuda.MemPool()
    with torch.cuda.graph(pool) if is_graph else torch.cuda.use_mem_pool(pool):
        for _ in range(choose.randrange(2, 8)):
            kept.append(torch.empty(choose.choice(SIZES), dtype=torch.uint8, device="cuda"))
            if choose.random() < 0.4:
                kept.pop(choose.randrange(len(kept)))
    return pool, kept
def run(seed):
    # The second one leaves the requests of a seed as they are without pools and on one device.
    choose, besides = random.Random(seed), random.Random(-1 - seed)
    sides = [torch.cuda.Stream(device) for device in range(torch.cuda.device_count())]
    late, live, pools = choose.random() < 0.6, [], []
    length = choose.choice([200, 400, 800])
    start = choose.randrange(length // 4, length * 3 // 4) if late else 0
    on_side, held, emptied = choose.choice([0, 0.2]), choose.choice([0, 0.1, 0.3]), choose.choice([0, 0.01, 0.03])
    for at in range(length):
        if at == start:
            record(True)
        if has_pools and besides.random() < 0.01:
            pools.append(in_pool(besides))
        if choose.random() < (0.7 if at % 200 < 100 else 0.35):
            device = besides.randrange(len(sides))
            size = choose.choice(SIZES) + 512 * choose.randrange(900) * (choose.random() < 0.5)
            with torch.cuda.stream(sides[device] if choose.random() < on_side else torch.cuda.current_stream(device)):
                try:
                    live.append(torch.empty(size, dtype=torch.uint8, device=f"cuda:{device}"))
                except torch.cuda.OutOfMemoryError:
                    live = live[::2]
        elif live:
            tensor = live.pop(choose.randrange(len(live)))
            if choose.random() < held:
                tensor.record_stream(sides[tensor.device.index])
            del tensor
        if choose.random() < emptied:
            torch.cuda.empty_cache()
    with open(f"{folder}/{seed}.pickle", "wb") as file:
        pickle.dump(torch.cuda.memory._snapshot(), file)
    record(False)
    live.clear()
    pools.clear()
    torch.cuda.synchronize()
    torch.cuda.empty_cache()
torch.cuda.init()
if fraction < 1:
    for device in range(torch.cuda.device_count()):
        torch.cuda.set_per_process_memory_fraction(fraction, device)
for seed in range(first, last):
    run(seed)
"""


def main(arguments: Sequence[str]) -> int:
    """Compare, print the table and write it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--programs", type=int, default=100, help="how many under each setting")
    parser.add_argument("--first", type=int, default=0, help="seed of the first program")
    parser.add_argument("--no-write", action="store_true", help="print only")
    options = parser.parse_args(arguments)
    python = Path(os.environ.get("MEMTRACE_DRIVERLESS_PYTHON", ROOT / ".venv-driverless" / "bin" / "python"))
    if not python.exists():
        print(f"skipped: no torch for CUDA at {python}; `make driverless` installs it")
        return 0
    rows, all_exact = [], True
    for setting in SETTINGS:
        row, is_exact = _row(python, setting, options.first, options.programs)
        rows.append(row)
        print(row, flush=True)
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


def _row(python: Path, setting: Setting, first: int, num_programs: int) -> tuple[str, bool]:
    """Return a row of the table, and whether all programs under a setting were predicted."""
    added = environment(Devices(num_devices=setting.devices), python=str(python))
    added |= {"PYTORCH_CUDA_ALLOC_CONF": setting.conf, "PYTORCH_ALLOC_CONF": setting.conf}
    exact = 0
    sums = [0, 0, 0, 0, 0]
    with tempfile.TemporaryDirectory() as folder:
        command = [str(python), "-c", PROGRAM, folder, str(first), str(first + num_programs)]
        command += [str(setting.fraction), str(setting.pools)]
        subprocess.run(command, env={**os.environ, **added}, check=True)
        for path in sorted(Path(folder).glob("*.pickle"), key=lambda one: int(one.stem)):
            (rank,) = read_trace(path).ranks
            found = [replay_device(rank, f"cuda:{device}").fidelity for device in range(setting.devices)]
            exact += all(one.is_exact for one in found)
            for one in found:
                if not one.is_exact:
                    print(f"{setting} ({setting.memory}), program {path.stem}: {one.first_divergence or one.reason}")
                figures = (one.allocations_matched, one.allocations, one.segment_events_matched, one.segment_events)
                sums = [a + b for a, b in zip(sums, (*figures, one.num_inferred_blocks), strict=True)]
    name = f"`{setting}`" if setting.conf else str(setting)
    row = (
        f"| {name} | {setting.memory} | {exact} of {num_programs} | "
        f"{sums[0]:,} of {sums[1]:,} | {sums[2]:,} of {sums[3]:,} | {sums[4]} |"
    )
    return row, exact == num_programs


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
