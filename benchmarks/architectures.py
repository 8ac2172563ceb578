"""Architectures of transformers, torchvision and timm in three settings each, predicted by both engines.

`programs/architectures.py` runs once for each architecture and engine. What crashed or was refused is listed with its
sentence; of what ran, by how much the peaks of the engines differ. Needs a Python whose torch is built for CUDA, with
transformers, torchvision and timm:

    python benchmarks/architectures.py --python .venv-driverless/bin/python [--only gpt_oss,clip] [--output FILE]
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks" / "programs")]

from benchmarks.engines import Requests, requests_by_model  # noqa: E402
from memtrace.errors import MemtraceError  # noqa: E402
from memtrace.forecast.gpus import Gpu, gpu_named  # noqa: E402
from memtrace.schema.predicted import DRIVERLESS, META  # noqa: E402

PROGRAM = "architectures.py"
_ENGINES = (DRIVERLESS, META)


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """One architecture in one setting under both engines: what each asked for, or why it could not be predicted."""

    name: str
    true: Requests | str
    ours: Requests | str

    @property
    def peak_percent(self) -> float | None:
        """How far the meta engine's peak of requested bytes is off; `None` where an engine did not run."""
        if isinstance(self.true, str) or isinstance(self.ours, str):
            return None
        return 100 * (self.ours.peak_bytes - self.true.peak_bytes) / self.true.peak_bytes

    @property
    def problems(self) -> list[str]:
        """What kept it from being predicted, engine by engine."""
        sides = zip(_ENGINES, (self.true, self.ours), strict=True)
        return [f"{engine}: {found}" for engine, found in sides if isinstance(found, str)]


def outcomes_of(name: str, settings: Sequence[str], gpu: Gpu, python: str) -> list[Outcome]:
    """Return what comes of one architecture in each setting."""
    names = [f"{name}, {setting}" for setting in settings]
    sides = []
    for engine in _ENGINES:
        try:
            found = requests_by_model(gpu, engine, python, program=PROGRAM, names=names)
        except MemtraceError as error:
            found = {one: " ".join(error.message.split()) for one in names}
        sides.append(found)
    missing = "it was not reached"
    return [Outcome(name=one, true=sides[0].get(one, missing), ours=sides[1].get(one, missing)) for one in names]


def line_of(one: Outcome) -> str:
    """Return a row of the table, of one that both predicted."""
    assert isinstance(one.true, Requests)
    assert isinstance(one.ours, Requests)
    return f"| {one.name} | {one.true.peak_bytes:,} | {one.ours.peak_bytes:,} | {one.peak_percent:+.3f} % |"


def summary(found: Sequence[Outcome]) -> Iterator[str]:
    """Yield what ran, and how far the engines agree."""
    errors = {one.name: error for one in found if (error := one.peak_percent) is not None}
    true, ours = (sum(isinstance(side, Requests) for side in sides) for sides in _sides(found))
    yield f"- predicted: driverless {true}, meta {ours}, both {len(errors)}, of {len(found)}"
    if errors:
        sizes = [abs(error) for error in errors.values()]
        worst = max(errors, key=lambda name: abs(errors[name]))
        within = ", ".join(f"{sum(size <= limit for size in sizes)} within {limit} %" for limit in (0.01, 1, 5))
        yield f"- peaks of the engines: {within}; median {statistics.median(sizes):.3f} %"
        yield f"- farthest apart: {errors[worst]:+.2f} % ({worst})"


def _sides(found: Sequence[Outcome]) -> tuple[list[Requests | str], list[Requests | str]]:
    return [one.true for one in found], [one.ours for one in found]


def document(found: Sequence[Outcome]) -> str:
    """Return everything as Markdown."""
    failed = [one for one in found if one.problems]
    lines = [*summary(found), "", "## Not predicted", ""]
    lines += [f"- {one.name}: {'; '.join(one.problems)}" for one in failed] or ["Nothing."]
    lines += [
        "",
        "## Peaks",
        "",
        "| architecture, setting | driverless, bytes | meta, bytes | off by |",
        "|---|--:|--:|--:|",
    ]
    lines += [line_of(one) for one in found if not one.problems]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Predict every architecture by both engines and print what came of each."""
    from architectures import SETTINGS, architectures

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", default=str(ROOT / ".venv-driverless" / "bin" / "python"))
    parser.add_argument("--gpu", default="a100-40gb")
    parser.add_argument("--only", default="")
    parser.add_argument("--output", type=Path)
    asked = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    chosen = {name for name in asked.only.split(",") if name}
    found: list[Outcome] = []
    for name in [one.name for one in architectures()]:
        if chosen and name not in chosen:
            continue
        began = time.monotonic()
        found += outcomes_of(name, list(SETTINGS), gpu_named(asked.gpu), asked.python)
        for one in found[-len(SETTINGS) :]:
            print(f"{one.name}: {'; '.join(one.problems) or f'{one.peak_percent:+.3f} %'}", flush=True)
        print(f"  {time.monotonic() - began:.0f} s", flush=True)
        if asked.output is not None:
            asked.output.write_text(document(found), encoding="utf-8")
    print("\n".join(summary(found)))


if __name__ == "__main__":
    main()
