"""The two engines of `memtrace predict` against each other, request by request, over many small models.

`programs/many_models.py` runs once for each engine and GPU. Of each model: the requests that only one engine makes, as
bytes, and how far apart the peaks are. Torch's own CUDA code is the truth here, so every difference is a rule of the
meta engine that is missing or wrong. Needs a Python whose torch is built for CUDA, with transformers and torchvision:

    python benchmarks/engines.py --python .venv-driverless/bin/python [--gpus t4-16gb,h100-80gb] [--output FILE]
        [--sample 25 --seed 1]
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from memtrace.cli.predicting.engine import devices  # noqa: E402
from memtrace.forecast.gpus import Gpu, gpu_named  # noqa: E402
from memtrace.forecast.prediction.judge import predicted_rank  # noqa: E402
from memtrace.launch.prediction import predict  # noqa: E402
from memtrace.schema.names import Action  # noqa: E402
from memtrace.schema.options import PredictOptions  # noqa: E402
from memtrace.schema.predicted import DRIVERLESS, FIRST_ALLOWANCE_ADDRESS, META  # noqa: E402
from memtrace.store.trace import RankTrace  # noqa: E402

GPUS = "t4-16gb,a100-40gb,rtx3090-24gb,h100-80gb,b200-192gb"
"""One of each compute capability: 7.5, 8.0, 8.6, 9.0 and 10.0."""
SAID = "MANY_MODELS_SAID"
SMALL = 64 * 1024
"""Requests up to this size are not listed one by one."""


@dataclass(frozen=True, kw_only=True)
class Requests:
    """What one model asked for under one engine."""

    sizes: Counter[int]
    peak_bytes: int


@dataclass(frozen=True, kw_only=True)
class Compared:
    """One model on one GPU under both engines."""

    gpu: str
    name: str
    true: Requests
    ours: Requests

    @property
    def peak_percent(self) -> float:
        """How far the meta engine's peak of requested bytes is off."""
        return 100 * (self.ours.peak_bytes - self.true.peak_bytes) / self.true.peak_bytes

    @property
    def share_alike(self) -> float:
        """Share of the requests that both make, of those that either makes."""
        both = (self.true.sizes & self.ours.sizes).total()
        return both / max((self.true.sizes | self.ours.sizes).total(), 1)

    def only_in(self, engine: str) -> list[tuple[int, int]]:
        """Return size and number of the requests that one engine makes alone, those with the most bytes first."""
        mine, other = (self.true, self.ours) if engine == DRIVERLESS else (self.ours, self.true)
        rest = {size: count for size, count in (mine.sizes - other.sizes).items() if size > SMALL}
        return sorted(rest.items(), key=lambda one: -one[0] * one[1])


def requests_by_model(
    gpu: Gpu, engine: str, python: str, *, program: str = "many_models.py", names: Sequence[str] = ()
) -> dict[str, Requests | str]:
    """Return by name what each model of a program, or each that is named, asks for under an engine, or why it failed.

    Raises:
        MemtraceError: the program as a whole cannot be predicted.
    """
    command = (python, "-W", "ignore", str(ROOT / "benchmarks" / "programs" / program), *names)
    options = PredictOptions(
        gpu_name=gpu.name, gpu_bytes=gpu.memory_bytes, capability=gpu.capability, num_steps=0, engine=engine
    )
    with tempfile.TemporaryDirectory() as folder:
        said = Path(folder) / "said.txt"
        trace = predict(
            command,
            Path(folder) / "predicted.json",
            options,
            force=True,
            allow_writes=True,
            # A CUDA build of torch without NVIDIA's libraries cannot be imported but on the stand-ins.
            variables={**devices(command, gpu), SAID: str(said), "HF_HUB_OFFLINE": "1"},
        )
        rows = [line.rstrip("\n").split("\t") for line in said.read_text(encoding="utf-8").splitlines()]
    rank = predicted_rank(trace)
    return {name: problem or _requests(rank, int(first) + 1, int(last)) for name, first, last, problem in rows if name}


def _requests(rank: RankTrace, first: int, last: int) -> Requests:
    """Return what was asked for from the first forward of a model to the end of its last step."""
    steps, events = rank.table("steps"), rank.table("events")
    chosen = (steps["step"] >= first) & (steps["step"] <= last)
    start, end = int(steps["start_ns"][chosen].min()), int(steps["end_ns"][chosen].max())
    allocs = events["action"] == rank.string_id(Action.ALLOC.value)
    # A step begins where the one before ends: the model before is first taken down.
    start = int(events["time_ns"][(events["time_ns"] >= start) & allocs].min())
    within = (events["time_ns"] >= start) & (events["time_ns"] <= end) & (events["address"] < FIRST_ALLOWANCE_ADDRESS)
    frees = events["action"] == rank.string_id(Action.FREE_COMPLETED.value)
    before = (events["time_ns"] < start) & (events["address"] < FIRST_ALLOWANCE_ADDRESS)
    deltas = events["size_bytes"] * (allocs * 1 - frees * 1)
    level = int(deltas[before].sum()) + np.cumsum(deltas[within])
    return Requests(sizes=Counter(events["size_bytes"][within & allocs].tolist()), peak_bytes=int(level.max(initial=0)))


def compared(gpu: Gpu, python: str, words: Sequence[str] = ()) -> Iterator[Compared | str]:
    """Yield every model on a GPU under both engines, or those that the words choose; a line for one that fails under
    either."""
    true, ours = (requests_by_model(gpu, engine, python, names=words) for engine in (DRIVERLESS, META))
    for name, found in true.items():
        other = ours.get(name, "it was not reached")
        problems = [f"{engine}: {one}" for engine, one in ((DRIVERLESS, found), (META, other)) if isinstance(one, str)]
        if isinstance(found, Requests) and isinstance(other, Requests):
            yield Compared(gpu=gpu.name, name=name, true=found, ours=other)
        else:
            yield f"| {gpu.name} | {name} | **failed**: {'; '.join(problems)} | | | | |"


def line_of(one: Compared) -> str:
    """Return a row of the table."""
    sides = (" + ".join(f"{count} × {size:,}" for size, count in one.only_in(engine)[:3]) for engine in _ENGINES)
    peaks = f"{one.true.peak_bytes:,} | {one.ours.peak_bytes:,} | {one.peak_percent:+.3f} %"
    return f"| {one.gpu} | {one.name} | {peaks} | {100 * one.share_alike:.1f} % | {' | '.join(sides)} |"


_ENGINES = (DRIVERLESS, META)


def summary(found: Sequence[Compared]) -> Iterator[str]:
    """Yield a line for each GPU."""
    yield "| GPU | models | peak equal | within 1 % | median | worst | requests alike |"
    yield "|---|--:|--:|--:|--:|--:|--:|"
    for gpu in dict.fromkeys(one.gpu for one in found):
        chosen = [one for one in found if one.gpu == gpu]
        errors = [abs(one.peak_percent) for one in chosen]
        worst = max(chosen, key=lambda one: abs(one.peak_percent))
        alike = statistics.mean(one.share_alike for one in chosen)
        counts = f"{sum(error == 0 for error in errors)} | {sum(error <= 1 for error in errors)}"
        figures = (
            f"{statistics.median(errors):.3f} % | {worst.peak_percent:+.2f} % ({worst.name}) | {100 * alike:.1f} %"
        )
        yield f"| {gpu} | {len(chosen)} | {counts} | {figures} |"


def main() -> None:
    """Run both engines on each GPU and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", default=str(ROOT / ".venv-driverless" / "bin" / "python"))
    parser.add_argument("--gpus", default=GPUS)
    parser.add_argument("--output", type=Path)
    parser.add_argument("--sample", type=int, help="as many of the models as this, by the seed")
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    words = [] if asked.sample is None else [f"--sample={asked.sample}", f"--seed={asked.seed}"]
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    head = ("GPU", "model", "requested at the peak, driverless", "meta", "off by", "requests alike")
    head += tuple(f"only {engine} asks for" for engine in _ENGINES)
    lines, found = [f"| {' | '.join(head)} |", "|---|---|--:|--:|--:|--:|---|---|"], []
    for name in asked.gpus.split(","):
        for one in compared(gpu_named(name), asked.python, words):
            lines.append(one if isinstance(one, str) else line_of(one))
            found += [] if isinstance(one, str) else [one]
            print(lines[-1], flush=True)
    lines = [*summary(found), "", *lines]
    print("\n".join(summary(found)))
    if asked.output is not None:
        asked.output.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
