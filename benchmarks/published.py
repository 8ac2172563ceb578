"""Peaks that others measured on real GPUs against what `memtrace predict` says of the same programs, by each engine.

Reads `../shared/data/published/gpu_peaks.csv`, runs the programs of its rows as on the GPU that they were measured on,
and writes signed errors, whether the stated range holds the truth, and how long it took. Needs a Python whose torch is
built for CUDA, with transformers, peft and torchvision:

    python benchmarks/published.py --python .venv-driverless/bin/python [--engine meta] [--only pf-] [--output FILE]

With `--libraries FOLDER` each row runs with the libraries of its source instead (torch, transformers, torchvision,
peft), as `published/libraries.py` names them; pip puts what is not there yet into FOLDER, about 1.5 GB for each of
three sources, in a Python of 3.10 to 3.12. `--possible` adds the versions that a source may have had where it does not
say which.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.published.addresses import Descending, reserved_from  # noqa: E402
from benchmarks.published.figures import HEAD, INSTALLED, RULE, Figure, held_out, line_of, summary, totals  # noqa: E402
from benchmarks.published.gpu_peaks import MeasuredPeak, measured_peaks  # noqa: E402
from benchmarks.published.libraries import LIBRARIES, make, of_kind, search_path  # noqa: E402
from memtrace.cli.predicting.engine import devices  # noqa: E402
from memtrace.errors import MemtraceError  # noqa: E402
from memtrace.forecast.gpus import gpu_named  # noqa: E402
from memtrace.forecast.prediction.driverless import driverless_trace  # noqa: E402
from memtrace.forecast.prediction.judge import placed_trace  # noqa: E402
from memtrace.forecast.prediction.results import Engine, GpuVerdict  # noqa: E402
from memtrace.launch.prediction import predict  # noqa: E402
from memtrace.schema.options import PredictOptions  # noqa: E402
from memtrace.schema.predicted import DRIVERLESS, META  # noqa: E402
from memtrace.store.trace import Trace  # noqa: E402

MIB = 1024**2
GPUS = {
    "T4": gpu_named("t4-16gb"),
    # Of the same generations: what differs beside the memory is the number of multiprocessors.
    "RTX 3060": replace(gpu_named("rtx3090-24gb"), memory_bytes=12 * 1024 * MIB),
    "RTX 4060": replace(gpu_named("rtx4090-24gb"), memory_bytes=8 * 1024 * MIB),
}
# Each program trains three or four steps, and ends of itself.
NUM_STEPS = 4


def predicted(row: MeasuredPeak, engine: str, python: str) -> tuple[Trace, GpuVerdict]:
    """Return the trace of a row and what is predicted of it.

    Raises:
        MemtraceError: it cannot be predicted.
    """
    gpu = GPUS[row.gpu]
    command = (python, "-W", "ignore", *row.command)

    def run(*, without_end: bool = False) -> Trace:
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
            return placed_trace(run(), gpu)
        return driverless_trace(run(), gpu, Engine(name=engine, why=""), lambda: run(without_end=True))


def figures_of(row: MeasuredPeak, engine: str, python: str, libraries: str) -> list[Figure]:
    """Return what is predicted of a row beside what was measured."""
    began = time.monotonic()
    trace, verdict = predicted(row, engine, python)
    seconds = time.monotonic() - began
    interval = verdict.interval
    measured = {"allocated": row.allocated_bytes, "reserved": row.reserved_bytes}
    otherwise = {"reserved": reserved_from(Descending(), trace.ranks[0])}
    return [
        Figure(
            row=row,
            engine=engine,
            libraries=libraries,
            what=what,
            true_bytes=true,
            predicted=(found := getattr(interval, what)),
            otherwise_bytes=otherwise.get(what, found.predicted_bytes),
            seconds=seconds,
        )
        for what, true in measured.items()
        if true is not None
    ]


def search_paths(row: MeasuredPeak, asked: argparse.Namespace) -> dict[str, str]:
    """Return by name the libraries that a row is to run with, as values of PYTHONPATH; made if need be."""
    if asked.libraries is None:
        return {INSTALLED: os.environ.get("PYTHONPATH", "")}
    chosen = [one for one in of_kind(row.kind) if asked.possible or one.over is None]
    for one in chosen:
        make(one, asked.libraries, asked.python)
    return {one.name: search_path(one, asked.libraries) for one in chosen}


def lines_of(row: MeasuredPeak, asked: argparse.Namespace, figures: list[Figure]) -> list[str]:
    """Return the lines of a row, and add its figures."""
    lines = []
    for libraries, path in search_paths(row, asked).items():
        # The torch of the programs is looked up by this process too: the stand-ins are made for it.
        os.environ["PYTHONPATH"] = path
        for engine in [asked.engine] if asked.engine else [DRIVERLESS, META]:
            try:
                found = figures_of(row, engine, asked.python, libraries)
                figures += found
                lines += map(line_of, found)
            except MemtraceError as error:
                refused = f"| {row.name} | {engine} | {libraries} | **refused**: {error.message[:160]} |"
                lines.append(refused + " |" * 7)
    return lines


def conclusions(figures: Sequence[Figure]) -> list[str]:
    """Return the tables that say what all rows came to."""
    likeliest = {one.name for one in LIBRARIES if one.over is None} | {INSTALLED}
    chosen = [one for one in figures if one.libraries in likeliest]
    source_of = {kind: one.name for one in LIBRARIES if one.over is None for kind in one.kinds}
    label = INSTALLED if any(one.libraries == INSTALLED for one in figures) else "the source's"
    return [*summary(figures), *totals(chosen, label), "", *held_out(chosen, source_of)]


def main() -> None:
    """Run the rows and print the tables, in MiB."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", default=str(ROOT / ".venv-driverless" / "bin" / "python"))
    parser.add_argument("--engine", choices=[DRIVERLESS, META], help="one of them; default: both")
    parser.add_argument("--only", default="", help="rows whose names hold this")
    parser.add_argument("--libraries", type=Path, metavar="FOLDER", help="run rows with the libraries of their source")
    parser.add_argument("--possible", action="store_true", help="and with others that the source may have had")
    parser.add_argument("--output", type=Path)
    asked = parser.parse_args()
    os.environ["HF_HUB_OFFLINE"] = "1"
    lines, figures = [HEAD, RULE], list[Figure]()
    for row in measured_peaks():
        if asked.only in row.name:
            lines += (found := lines_of(row, asked, figures))
            print("\n".join(found), flush=True)
    said = conclusions(figures)
    print("\n".join(said))
    if asked.output is not None:
        asked.output.write_text("\n".join([*said, "", *lines]) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
