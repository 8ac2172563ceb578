"""Speed and reach of `memtrace predict`: `python benchmarks/predict.py [--real-batch N] [--llama]`. Needs no GPU.

Predicts `samples/train_gpt.py` at the sizes of GPT-2 (batch 8 x 1024, float32): seconds a step, allocations, the
largest allocated bytes, and the largest host memory of the process. With --real-batch, one real step on the CPU at the
smallest size and that batch is timed beside it; a batch below 8 makes a lower bound for what batch 8 takes. With
--llama, models shaped like Llama (`programs/train_llama.py`), up to 70B, on one GPU and as one of 64 ranks.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from memtrace.schema.names import Action
from memtrace.store.reading.read import read_trace
from memtrace.units import format_bytes

SAMPLE = Path(__file__).parent.parent / "samples" / "train_gpt.py"
LLAMA = Path(__file__).parent / "programs" / "train_llama.py"
SIZES = {"small": (12, 12, 768), "medium": (24, 16, 1024), "large": (36, 20, 1280), "xl": (48, 25, 1600)}
LLAMAS = (("1b", "one"), ("8b", "ranks-from-meta"), ("70b", "ranks-from-meta"), ("70b", "ranks"), ("70b", "one"))


def program(size: str, *, batch: int, device: str, steps: int) -> list[str]:
    """Return the command line of the sample."""
    layers, heads, hidden = SIZES[size]
    options = {"layers": layers, "heads": heads, "hidden": hidden, "sequence": 1024, "micro-batch": batch}
    options |= {"steps": steps}
    words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    return [sys.executable, str(SAMPLE), *words, "--device", device]


def predict(name: str, command: list[str], folder: Path, *, world_size: int = 1) -> str:
    """Return a row of the table: one prediction. That the program does not fit (exit status 3) is a prediction, too."""
    path = folder / "predicted.json"
    words = [sys.executable, "-m", "memtrace", "predict", "--force", "-o", str(path), "--gpu", "h200-141gb"]
    began = time.perf_counter()
    done = subprocess.run(
        [*words, "--world-size", str(world_size), "--json", "--", *command], check=False, capture_output=True, text=True
    )
    whole = time.perf_counter() - began
    if done.returncode not in (0, 3):
        raise SystemExit(done.stderr)
    peak = format_bytes(json.loads(done.stdout)["peak_allocated_bytes"])
    (rank,) = read_trace([path]).ranks
    steps, events = rank.table("steps"), rank.table("events")
    seconds = [(end - start) / 1e9 for start, end in zip(steps["start_ns"], steps["end_ns"], strict=True)][2:4]
    allocs = int((events["action"] == rank.string_id(Action.ALLOC.value)).sum())
    host = format_bytes(int(rank.header["peak_host_rss_bytes"]))
    spent = f"{min(seconds):>7.2f} s a step {whole:>7.1f} s in all"
    return f"{name:<20} {peak:>9} {spent} {allocs:>8} allocations, host {host}"


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
    parser.add_argument("--llama", action="store_true", help="predict models shaped like Llama as well")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for size in args.sizes:
            command = program(size, batch=8, device="cuda", steps=10)
            print(predict(size, command, Path(folder)), flush=True)
        for size, where in LLAMAS if args.llama else ():
            command = [sys.executable, str(LLAMA), size, "--on", where]
            print(predict(f"{size} {where}", command, Path(folder), world_size=1 if where == "one" else 64), flush=True)
    if args.real_batch:
        print(f"small    {real_step(args.real_batch):>7.2f} s a real step on the CPU at batch {args.real_batch}")


if __name__ == "__main__":
    main()
