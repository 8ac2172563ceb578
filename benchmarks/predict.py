"""Speed and reach of `memtrace predict`: `python benchmarks/predict.py [--real-batch N]`. Needs no GPU.

Predicts `samples/train_gpt.py` at the sizes of GPT-2 (batch 8 x 1024, float32): seconds a step, allocations, and the
largest host memory of the process. With --real-batch, one real step on the CPU at the smallest size and
that batch is timed beside it; a batch below 8 makes a lower bound for what batch 8 takes.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from memtrace.schema.names import Action
from memtrace.store.read import read_trace
from memtrace.units import format_bytes

SAMPLE = Path(__file__).parent.parent / "samples" / "train_gpt.py"
SIZES = {"small": (12, 12, 768), "medium": (24, 16, 1024), "large": (36, 20, 1280), "xl": (48, 25, 1600)}


def program(size: str, *, batch: int, device: str, steps: int) -> list[str]:
    """Return the command line of the sample."""
    layers, heads, hidden = SIZES[size]
    options = {"layers": layers, "heads": heads, "hidden": hidden, "sequence": 1024, "micro-batch": batch}
    options |= {"steps": steps}
    words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    return [sys.executable, str(SAMPLE), *words, "--device", device]


def predict(size: str, folder: Path) -> str:
    """Return a row of the table: one prediction."""
    path = folder / f"{size}.json"
    command = [sys.executable, "-m", "memtrace", "predict", "-o", str(path), "--gpu", "h200-141gb", "--"]
    began = time.perf_counter()
    subprocess.run([*command, *program(size, batch=8, device="cuda", steps=10)], check=True, capture_output=True)
    whole = time.perf_counter() - began
    (rank,) = read_trace([path]).ranks
    steps, events = rank.table("steps"), rank.table("events")
    seconds = [(end - start) / 1e9 for start, end in zip(steps["start_ns"], steps["end_ns"], strict=True)][2:4]
    allocs = int((events["action"] == rank.string_id(Action.ALLOC.value)).sum())
    host = format_bytes(int(rank.header["peak_host_rss_bytes"]))
    return f"{size:<8} {min(seconds):>7.2f} s a step {whole:>7.1f} s in all {allocs:>8} allocations, host {host}"


def real_step(batch: int) -> float:
    """Return the seconds of the second of two real steps on the CPU."""
    command = program("small", batch=batch, device="cpu", steps=2)
    with subprocess.Popen([command[0], "-u", *command[1:]], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        times = [time.perf_counter() for line in child.stdout if line.startswith("step")]
    return times[1] - times[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", nargs="+", default=list(SIZES), choices=list(SIZES))
    parser.add_argument("--real-batch", type=int, default=0, help="rows of the real step on the CPU; 0 leaves it out")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for size in args.sizes:
            print(predict(size, Path(folder)), flush=True)
    if args.real_batch:
        print(f"small    {real_step(args.real_batch):>7.2f} s a real step on the CPU at batch {args.real_batch}")


if __name__ == "__main__":
    main()
