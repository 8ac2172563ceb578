"""Peaks that others measured on real GPUs against what `memtrace predict` says of the same programs, by each engine.

Reads `../shared/data/published/gpu_peaks.csv`, runs the programs of its rows as on the GPU that they were measured on,
and writes signed errors, whether the stated range holds the truth, and how long it took. Needs a Python whose torch is
built for CUDA, with transformers, peft and torchvision:

    python benchmarks/published.py --python .venv-driverless/bin/python [--engine meta] [--only pf-] [--output FILE]
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.published.gpu_peaks import MeasuredPeak, measured_peaks  # noqa: E402
from memtrace.cli.predicting.engine import devices  # noqa: E402
from memtrace.errors import MemtraceError  # noqa: E402
from memtrace.forecast.gpus import gpu_named  # noqa: E402
from memtrace.forecast.prediction.driverless import driverless_trace  # noqa: E402
from memtrace.forecast.prediction.judge import placed_trace  # noqa: E402
from memtrace.forecast.prediction.results import Engine, GpuVerdict, Range  # noqa: E402
from memtrace.launch.prediction import predict  # noqa: E402
from memtrace.schema.options import PredictOptions  # noqa: E402
from memtrace.schema.predicted import DRIVERLESS, META  # noqa: E402

MIB = 1024**2
GPUS = {
    "T4": gpu_named("t4-16gb"),
    # Of the same generations: what differs beside the memory is the number of multiprocessors.
    "RTX 3060": replace(gpu_named("rtx3090-24gb"), memory_bytes=12 * 1024 * MIB),
    "RTX 4060": replace(gpu_named("rtx4090-24gb"), memory_bytes=8 * 1024 * MIB),
}
OWN_TOOLS = {
    "pf": ("torch-preflight", "3.0 % / -12.4 % (allocated, its own rows)"),
    "lora": ("fitcheck-llm", "0.8 % / -3.1 % (allocated, its own rows)"),
    "xcnn": ("xMem", "3.5 % / -11.2 % (reserved, 11 rows)"),
    "xllm": ("xMem", "3.7 % / -9.6 % (reserved, 9 rows)"),
}
"""By kind of row: the tool that its source publishes, and that tool's median and worst error by its own account."""
# Each program trains three or four steps, and ends of itself.
NUM_STEPS = 4


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One quantity of one row, measured and predicted."""

    row: MeasuredPeak
    engine: str
    what: str
    true_bytes: int
    predicted: Range
    seconds: float

    @property
    def error_percent(self) -> float:
        """Signed: positive where too much is predicted."""
        return 100 * (self.predicted.predicted_bytes - self.true_bytes) / self.true_bytes

    @property
    def is_covered(self) -> bool:
        """Whether the stated range holds what was measured."""
        return self.predicted.low_bytes <= self.true_bytes <= self.predicted.high_bytes


def verdict_of(row: MeasuredPeak, engine: str, python: str) -> GpuVerdict:
    """Return what is predicted of a row.

    Raises:
        MemtraceError: it cannot be predicted.
    """
    gpu = GPUS[row.gpu]
    command = (python, "-W", "ignore", *row.command)

    def run(*, without_end: bool = False) -> object:
        options = PredictOptions(
            gpu_name=gpu.name,
            gpu_bytes=gpu.memory_bytes,
            capability=gpu.capability,
            num_steps=NUM_STEPS,
            engine=engine,
        )
        # A CUDA build of torch without NVIDIA's libraries cannot even be imported but on the stand-ins.
        found = devices(command, gpu, without_end=without_end)
        path = Path(folder) / "predicted.json"
        return predict(
            command, path, options, force=True, allow_writes=False, variables=found, stdout=sink, stderr=sink
        )

    with tempfile.TemporaryDirectory() as folder, open(os.devnull, "wb") as nowhere:
        sink = nowhere.fileno()
        if engine == META:
            return placed_trace(run(), gpu)[1]
        return driverless_trace(run(), gpu, Engine(name=engine, why=""), lambda: run(without_end=True))[1]


def figures_of(row: MeasuredPeak, engine: str, python: str) -> list[Figure]:
    """Return what is predicted of a row beside what was measured."""
    began = time.monotonic()
    verdict = verdict_of(row, engine, python)
    seconds = time.monotonic() - began
    interval = verdict.interval
    measured = {"allocated": row.allocated_bytes, "reserved": row.reserved_bytes}
    return [
        Figure(row=row, engine=engine, what=what, true_bytes=true, predicted=getattr(interval, what), seconds=seconds)
        for what, true in measured.items()
        if true is not None
    ]


def line_of(one: Figure) -> str:
    """Return a row of the table."""
    figures = f"{one.true_bytes / MIB:,.1f} | {one.predicted.predicted_bytes / MIB:,.1f} | {one.error_percent:+.2f} %"
    limits = f"{one.predicted.low_bytes / MIB:,.0f} – {one.predicted.high_bytes / MIB:,.0f}"
    covered = "yes" if one.is_covered else "**no**"
    return f"| {one.row.name} | {one.engine} | {one.what} | {figures} | {limits} | {covered} | {one.seconds:.0f} |"


def summary(figures: Sequence[Figure]) -> Iterator[str]:
    """Yield a line for each source, engine and quantity: median and worst error, coverage, the source's own tool."""
    yield "| rows | engine | quantity | n | median | worst | in the range | the source's own tool: median / worst |"
    yield "|---|---|---|--:|--:|--:|--:|---|"
    keys = sorted({(one.row.kind, one.engine, one.what) for one in figures}, key=str)
    for kind, engine, what in [*keys, *sorted({("", one.engine, one.what) for one in figures})]:
        chosen = [one for one in figures if (one.engine, one.what) == (engine, what) and one.row.kind.startswith(kind)]
        errors = [one.error_percent for one in chosen]
        covered = sum(one.is_covered for one in chosen)
        median, worst = statistics.median(map(abs, errors)), max(errors, key=abs)
        tool = ": ".join(OWN_TOOLS[kind]) if kind else ""
        label = kind or "all"
        yield f"| {label} | {engine} | {what} | {len(chosen)} | {median:.2f} % | {worst:+.2f} % | {covered} | {tool} |"


def main() -> None:
    """Run the rows and print the tables, in MiB."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", default=str(ROOT / ".venv-driverless" / "bin" / "python"))
    parser.add_argument("--engine", choices=[DRIVERLESS, META], help="one of them; default: both")
    parser.add_argument("--only", default="", help="rows whose names hold this")
    parser.add_argument("--output", type=Path)
    asked = parser.parse_args()
    os.environ["HF_HUB_OFFLINE"] = "1"
    lines = ["| row | engine | quantity | measured, MiB | predicted | error | range | holds it | s |"]
    lines.append("|---|---|---|--:|--:|--:|--:|---|--:|")
    figures: list[Figure] = []
    for row in measured_peaks():
        for engine in [asked.engine] if asked.engine else [DRIVERLESS, META]:
            if asked.only not in row.name:
                continue
            before = len(lines)
            try:
                found = figures_of(row, engine, asked.python)
                figures += found
                lines += map(line_of, found)
            except MemtraceError as error:
                lines.append(f"| {row.name} | {engine} | **refused**: {error.message[:160]} | | | | | | |")
            print("\n".join(lines[before:]), flush=True)
    lines += ["", *summary(figures)]
    print("\n".join(lines[-len(list(summary(figures))) :]))
    if asked.output is not None:
        asked.output.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
