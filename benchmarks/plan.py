"""How many layouts a second a plan evaluates, against a plain Python loop over the same formulas in the same run.

    python benchmarks/plan.py [--gpus 4096] [--sample 300] [--no-write]

All layouts of Llama 3 70B on so many GPUs are evaluated at once; a sample of them is evaluated one by one by the same
functions. Both must agree: memory to the byte, time to 12 digits. Times are of the processor, so that other programs on
the core do not count. The figures are written to `benchmarks/results/plan-<date>.md`. Exit status 1 says that a target
was missed.
"""

from __future__ import annotations

import argparse
import datetime
import os
import platform
import random
import sys
import time
from dataclasses import fields
from pathlib import Path

ROOT = Path(__file__).parent.parent
RESULTS = Path(__file__).parent / "results"
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402

from memtrace.forecast.gpus import gpu_named  # noqa: E402
from memtrace.forecast.memory.layout import Layout, Run  # noqa: E402
from memtrace.forecast.memory.phases import moments  # noqa: E402
from memtrace.forecast.model.presets import preset  # noqa: E402
from memtrace.forecast.planning.layouts import Grid, layout_grid  # noqa: E402
from memtrace.forecast.planning.plan import Question, evaluate  # noqa: E402
from memtrace.forecast.step_time.step import step_time  # noqa: E402

MIN_RATIO = 50
"""How many times faster than the loop."""
AIM_PER_SECOND = 100_000
SPEC = preset("llama-3-70b")


def loop(question: Question, grid: Grid, rows: list[int]) -> list[tuple[int, float]]:
    """Return peak and seconds of some layouts, one after the other, in whole numbers."""
    found = []
    for at in rows:
        number = {one.name: int(getattr(grid, one.name)[at]) for one in fields(Grid)}
        run = Run(
            micro_batch=number["micro_batch"],
            accumulation=number["accumulation"],
            recompute=number["recompute"],
            sequence=question.sequence,
            attention=question.attention,
            is_fused=True,
            context=question.gpu.context,
        )
        layout = Layout(**{name: number[name] for name in ("dp", "tp", "pp", "virtual_stages", "cp", "ep", "zero")})
        points = [one for is_last in (False, True) for one in moments(SPEC, run, layout, is_last=is_last, steady=True)]
        seconds = step_time(SPEC, run, layout, question.gpu, question.used_speed).total
        found.append((max(int(one.num_bytes) for one in points), float(seconds)))
    return found


def main() -> int:
    """Measure, print, write, return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gpus", type=int, default=4096)
    parser.add_argument("--sample", type=int, default=300)
    parser.add_argument("--no-write", action="store_true")
    args = parser.parse_args()
    question = Question(
        gpus=args.gpus, gpu=gpu_named("h100-80gb"), global_tokens=2**28, sequence=8192, attention="explicit"
    )
    start = time.process_time()
    small = layout_grid(
        SPEC,
        gpus=question.gpus,
        global_sequences=question.global_sequences,
        sequence=question.sequence,
        has_quadratic=True,
        gpus_per_node=question.gpu.gpus_per_node,
    )
    listing = time.process_time() - start
    # As often as it takes for a hundred thousand: the time of a layout does not depend on its neighbours.
    grid = small.take(np.arange(max(len(small), AIM_PER_SECOND)) % len(small))
    evaluate(SPEC, question, grid)
    seconds = []
    for _ in range(5):
        start = time.process_time()
        found = evaluate(SPEC, question, grid)
        seconds.append(time.process_time() - start)
    at_once = sorted(seconds)[2] / len(grid)
    rows = random.Random(0).sample(range(len(grid)), args.sample)
    start = time.process_time()
    alone = loop(question, grid, rows)
    one_by_one = (time.process_time() - start) / len(rows)
    equal = all(
        peak == int(found.peak[at]) and abs(time_s - found.seconds[at]) <= 1e-12 * time_s
        for at, (peak, time_s) in zip(rows, alone, strict=True)
    )
    ratio = one_by_one / at_once
    lines = [
        f"# Plan, {datetime.date.today()}",
        "",
        f"{platform.processor() or platform.machine()}, Python {platform.python_version()}, numpy {np.__version__}, "
        f"on one of {os.cpu_count()} cores at a load of {os.getloadavg()[0]:.1f}.",
        f"Llama 3 70B on {args.gpus} GPUs: {len(small):,} layouts, listed in {listing:.2f} s; evaluated {len(grid):,}.",
        "",
        "| processor time | layouts a second | a layout |",
        "|---|---|---|",
        f"| at once | {1 / at_once:,.0f} | {1e6 * at_once:.1f} µs |",
        f"| one by one ({args.sample} of them) | {1 / one_by_one:,.0f} | {1e6 * one_by_one:.0f} µs |",
        "",
        f"{ratio:.0f} times as fast (target: {MIN_RATIO}); results {'equal' if equal else 'DIFFER'}; "
        f"{AIM_PER_SECOND:,} a second were aimed at.",
    ]
    text = "\n".join(lines) + "\n"
    print(text)
    if not args.no_write:
        (RESULTS / f"plan-{datetime.date.today()}.md").write_text(text, encoding="utf-8")
    return 0 if equal and ratio >= MIN_RATIO else 1


if __name__ == "__main__":
    sys.exit(main())
