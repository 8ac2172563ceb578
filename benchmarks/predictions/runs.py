"""Running a configuration: predicted, recorded, and with little memory; and reading what the trace says.

In: a `Case`. Out: `Figures`, plain values that travel between processes.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.predictions.cases import Case
from memtrace.analysis.report import analyze
from memtrace.analysis.results.report import Peak
from memtrace.forecast.prediction.judge import predicted_device, predicted_rank
from memtrace.forecast.prediction.placed import place
from memtrace.schema.names import Category
from memtrace.schema.options import PredictOptions, RecordOptions
from memtrace.store.reading.read import read_trace
from memtrace.store.trace import RankTrace, Trace

MAX_SECONDS = 180
OWNED = tuple(one.value for one in (Category.PARAMETER, Category.BUFFER, Category.GRADIENT, Category.OPTIMIZER_STATE))
PROBED = (0.9, 0.97, 1.03, 1.1)
"""Capacities that a configuration is run with, as parts of what the prediction reserves."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Level:
    """What a step, or the steps after the first, needed at most."""

    allocated_bytes: int
    reserved_bytes: int | None
    """`None` on the CPU."""
    by_category: Mapping[str, int] = field(default_factory=dict)
    """Requested bytes at the peak."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """What one run needed."""

    first: Level
    steady: Level
    owned: Mapping[str, int]
    """Bytes of the tensors that something owns at the end of the last step, by category."""
    saved: Mapping[str, int]
    """Bytes that autograd keeps for the backward of the last step, by class of node; parameters are not in it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """One run with little memory."""

    capacity_bytes: int
    predicted_fits: bool
    fits: bool


def predict(case: Case, gpu: PredictOptions, folder: Path) -> tuple[Figures, RankTrace]:
    """Return what is predicted for a configuration, and the rank as it was before it had a capacity.

    Raises:
        MemtraceError: it cannot be predicted.
    """
    from memtrace.launch.prediction import predict as run_prediction

    with _output_to(folder / "predict.log"):
        trace = run_prediction(case.command("cuda"), folder / "p.json", gpu, force=True, allow_writes=False)
    rank = predicted_rank(trace)
    placed = place(rank, predicted_device(rank), capacity_bytes=None)
    return figures(Trace(header=trace.header, ranks=(placed.rank,), path="")), rank


def record(case: Case, folder: Path, device: str) -> Figures:
    """Return what a real run of a configuration needs: its totals as torch says them, where it says any.

    Raises:
        RuntimeError: it failed; the message ends with what it printed last.
    """
    from memtrace.launch.session import Recording
    from memtrace.launch.session import record as run_recorded

    trace, log = folder / "r.json", folder / "record.log"
    options = RecordOptions(parts_dir="", steps="1-", stacks="none", device=device)
    with _output_to(log):
        recording = Recording(command=tuple(case.command(device)), path=trace, force=True, options=options)
        status = run_recorded(recording, print)
    printed = log.read_text(encoding="utf-8", errors="replace")
    if status or not trace.exists():
        raise RuntimeError(f"exit status {status}: {printed[-600:]}")
    found = figures(read_trace(trace))
    return found if device == "cpu" else with_totals(found, said(printed))


def probe(case: Case, rank: RankTrace, reserved_bytes: int) -> list[Probe]:
    """Run a configuration with several capacities around what it is predicted to reserve."""
    found = []
    for part in PROBED:
        capacity = int(part * reserved_bytes)
        ran = subprocess.run(
            case.command("cuda", capacity_bytes=capacity), capture_output=True, text=True, timeout=MAX_SECONDS
        )
        if ran.returncode and "OutOfMemoryError" not in ran.stderr:
            raise RuntimeError(f"exit status {ran.returncode}: {ran.stderr[-600:]}")
        fits = place(rank, predicted_device(rank), capacity_bytes=capacity).failed is None
        found.append(Probe(capacity_bytes=capacity, predicted_fits=fits, fits=not ran.returncode))
    return found


def figures(trace: Trace) -> Figures:
    """Return the figures of a recorded or predicted run.

    Raises:
        RuntimeError: no two steps are in it.
    """
    report = max(analyze(trace).ranks, key=lambda one: (one.device != "cpu", one.num_events))
    rank = next(one for one in trace.ranks if one.rank == report.rank)
    steps = [step for step in report.steps if step.end_ns is not None]
    if report.first_step_peak is None or report.steady_state_peak is None or len(steps) < 2:
        raise RuntimeError(f"only {len(steps)} steps were recorded")
    last = steps[-1].step
    return Figures(
        first=_level(report.first_step_peak, [steps[0].max_reserved_bytes]),
        steady=_level(report.steady_state_peak, [step.max_reserved_bytes for step in steps[1:]]),
        owned=owned(rank, last),
        saved=saved(rank, last),
    )


def _level(peak: Peak, reserved: Sequence[int | None]) -> Level:
    return Level(
        allocated_bytes=peak.allocated_bytes or peak.requested_bytes or 0,
        reserved_bytes=max((one for one in reserved if one is not None), default=None),
        by_category=dict(peak.by_category),
    )


def owned(rank: RankTrace, step: int) -> dict[str, int]:
    """Return the bytes of the tensors that something owns at the end of a step, by category, on all devices."""
    owners, of_name = rank.table("owners"), dict[tuple[str, str], int]()
    columns = (owners[name].tolist() for name in ("step", "category", "name", "tensor_bytes"))
    for of_step, category, name, size in zip(*columns, strict=True):
        if of_step == step:
            of_name[rank.text(category) or "", rank.text(name) or ""] = size
    found = dict.fromkeys(OWNED, 0)
    for (category, _), size in of_name.items():
        if category in found:
            found[category] += size
    return found


def saved(rank: RankTrace, step: int) -> dict[str, int]:
    """Return the bytes that each class of node keeps for the backward of a step, each storage once."""
    table, owners = rank.table("saved"), rank.table("owners")
    lasting = np.isin(owners["category"], [rank.string_id(one.value) for one in (Category.PARAMETER, Category.BUFFER)])
    addresses = set(owners["address"][lasting].tolist())
    found: dict[str, int] = {}
    columns = (table[name].tolist() for name in ("step", "address", "op", "size_bytes"))
    for of_step, address, op, size in zip(*columns, strict=True):
        if of_step == step and address not in addresses:
            name = rank.text(op) or ""
            found[name] = found.get(name, 0) + size
    return found


def with_totals(found: Figures, totals: Sequence[Mapping[str, Any]]) -> Figures:
    """Return the figures with the totals that torch gave at the end of each step."""
    peaks = [(int(one["peak_allocated_bytes"]), int(one["max_reserved_bytes"])) for one in totals]
    if len(peaks) < 2:
        raise RuntimeError(f"the program told of {len(peaks)} steps")
    (first, first_reserved), later = peaks[0], peaks[1:]
    return Figures(
        first=Level(allocated_bytes=first, reserved_bytes=first_reserved, by_category=found.first.by_category),
        steady=Level(
            allocated_bytes=max(peak for peak, _ in later),
            reserved_bytes=max(reserved for _, reserved in later),
            by_category=found.steady.by_category,
        ),
        owned=found.owned,
        saved=found.saved,
    )


def beside_bytes(case: Case) -> int:
    """Return what a real run takes of an otherwise idle GPU beside torch: context and loaded kernels."""
    ran = subprocess.run(case.command("cuda"), capture_output=True, text=True, timeout=MAX_SECONDS, check=True)
    return max(int(one["beside_bytes"]) for one in said(ran.stdout))


def said(printed: str) -> list[dict[str, Any]]:
    """Return the lines in which the program told what torch says of each step."""
    return [json.loads(line) for line in printed.splitlines() if line.startswith('{"step"')]


@contextmanager
def _output_to(path: Path) -> Iterator[None]:
    """Send what this process and its children print to a file."""
    sys.stdout.flush()
    kept = [os.dup(number) for number in (1, 2)]
    with path.open("wb") as file:
        try:
            for number in (1, 2):
                os.dup2(file.fileno(), number)
            yield
        finally:
            sys.stdout.flush()
            for number, one in zip((1, 2), kept, strict=True):
                os.dup2(one, number)
                os.close(one)
