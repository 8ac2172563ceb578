"""Predictions against a GPU: at least 25 ways to train, each predicted, recorded on the GPU and compared.

    python benchmarks/accuracy_gpu.py [--only WORD …] [--workers N] [--seconds S] [--no-write]

Needs torch, a GPU and this repository with what it depends on; nothing is installed or fetched. Without a GPU it
predicts all the same, compares in small with real runs on the CPU, and says what is not measured. The result goes to
`benchmarks/results/predict-accuracy-DATE.md`. On torch's CUDA code without a GPU (`memtrace/driverless/`) it compares
as with a GPU, says so, and the result goes to `predict-accuracy-driverless-DATE.md`. Exit status 1 says that nothing
could be compared.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.util
import json
import os
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, wait
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
sys.path.insert(0, str(ROOT))

from memtrace.driverless.environment import VARIABLE as DESCRIBED_DEVICES  # noqa: E402

# The programs are run by path: they find memtrace as the launcher tells them, with one thread each.
os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}

if TYPE_CHECKING:
    from benchmarks.predictions.cases import Case
    from benchmarks.predictions.outcomes import Outcome

NEEDED = ("click", "numpy", "orjson", "pandas", "torch")
BYTES_A_RUN = 16 * 1024**3
"""No configuration needs more of a GPU; so many of them run at the same time as have place."""
ASKED_WITHOUT_GPU = "h100-80gb"
IS_DRIVERLESS = DESCRIBED_DEVICES in os.environ
NOT_RUN = "not run: no time left"
FACTS = """
import json, torch
if torch.cuda.is_available():
    one = torch.cuda.get_device_properties(0)
    print("FACTS " + json.dumps({"name": one.name, "bytes": one.total_memory, "capability": [one.major, one.minor],
                                 "torch": torch.__version__, "runtime": torch.version.cuda or torch.version.hip}))
"""


def gpu_facts() -> dict[str, Any] | None:
    """Return what torch says of the first GPU, asked in a process of its own; `None` where there is none."""
    ran = subprocess.run([sys.executable, "-c", FACTS], capture_output=True, text=True, timeout=120, check=False)
    lines = [line for line in ran.stdout.splitlines() if line.startswith("FACTS ")]
    return dict(json.loads(lines[-1].removeprefix("FACTS "))) if lines else None


def driver_version() -> str:
    """Return the version of the GPU's driver."""
    try:
        command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        ran = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError):
        return "not known"
    return ran.stdout.strip().splitlines()[0]


def run_all(work: Callable[[Case], Outcome], cases: Sequence[Case], *, workers: int, seconds: float) -> list[Outcome]:
    """Run configurations in worker processes, none of which begins after the time is up."""
    from benchmarks.predictions.outcomes import Outcome

    deadline = time.monotonic() + seconds
    with ProcessPoolExecutor(workers) as pool:
        futures = [pool.submit(work, case) for case in cases]
        waiting = set(futures)
        while waiting and time.monotonic() < deadline:
            done, waiting = wait(waiting, timeout=1.0)
            for one in done:
                _say(one.result())
        for one in waiting:
            one.cancel()
    return [_result(one, Outcome(case=case, failure=NOT_RUN)) for one, case in zip(futures, cases, strict=True)]


def _result(future: Future[Outcome], otherwise: Outcome) -> Outcome:
    return otherwise if future.cancelled() else future.result()


def _say(one: Outcome) -> None:
    state = one.failure or "compared"
    print(f"{one.case.name}: {state} ({one.seconds:.0f} s)", flush=True)


def options_of(facts: dict[str, Any] | None) -> Any:
    """Return the GPU that predictions are made for: the one that is there, or a known one."""
    from benchmarks.predictions.cases import STEPS
    from memtrace.forecast.gpus import gpu_named
    from memtrace.schema.options import PredictOptions

    if facts is not None:
        name, num_bytes, capability = facts["name"], facts["bytes"], tuple(facts["capability"])
    else:
        gpu = gpu_named(ASKED_WITHOUT_GPU)
        name, num_bytes, capability = gpu.name, gpu.memory_bytes, gpu.capability
    return PredictOptions(gpu_name=name, gpu_bytes=num_bytes, capability=capability, num_steps=STEPS)


def num_workers(facts: dict[str, Any] | None) -> int:
    """Return how many configurations run at a time: as many as there are processors for, and memory."""
    by_processors = max(1, (os.cpu_count() or 1) // (1 if facts is None else 2))
    return by_processors if facts is None else max(1, min(by_processors, facts["bytes"] // BYTES_A_RUN))


def processor_seconds() -> float:
    """Return the processor time of everything that ran here."""
    of_all = (resource.getrusage(one) for one in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(one.ru_utime + one.ru_stime for one in of_all)


def heading(facts: dict[str, Any] | None, seconds: float) -> list[str]:
    """Return the first lines of the page."""
    from importlib.metadata import version

    if facts is None:
        device = f"No GPU; predicted for {ASKED_WITHOUT_GPU}. torch {version('torch')}"
    else:
        runtime, driver = facts["runtime"], driver_version()
        device = (
            f"{facts['name']}, {facts['bytes'] / 2**30:.1f} GiB, driver {driver}. torch {facts['torch']}, {runtime}"
        )
    if facts is None:
        what = "the part that needs no GPU"
    elif IS_DRIVERLESS:
        what = "torch's CUDA code without a GPU"
        device = f"As on {device}: no kernel ran (docs/driverless.md)"
    else:
        what = "on a GPU"
    return [
        f"# Predictions against real runs: {what}, {datetime.date.today().isoformat()}",
        "",
        f"{device}, Python {platform.python_version()}; {os.cpu_count()} processors, {seconds:.0f} s "
        f"in all, {processor_seconds():.0f} s of processor time.",
        "",
    ]


def main() -> int:
    """Predict, run, compare, write; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", default=(), help="words that a configuration's name must hold")
    parser.add_argument("--workers", type=int, help="configurations at a time; a GPU's memory limits them")
    parser.add_argument("--seconds", type=float, default=3600, help="after which no further configuration begins")
    parser.add_argument("--no-write", action="store_true", help="print the page instead of writing it")
    args = parser.parse_args()
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        print(f"Missing here: {', '.join(missing)}. Nothing is compared.")
        return 1
    from benchmarks.predictions.cases import all_cases
    from benchmarks.predictions.outcomes import on_cpu, on_gpu
    from benchmarks.predictions.runs import beside_bytes
    from benchmarks.predictions.tables import cpu_document, gpu_document
    from memtrace.schema.cuda_context import USUAL_CONTEXT, context_of
    from memtrace.schema.gpu_cards import CARDS

    began, facts = time.monotonic(), gpu_facts()
    gpu = options_of(facts)
    cases = [case for case in all_cases() if set(args.only) <= set(case.name.split())]
    # Alone on the GPU, before anything else runs there.
    beside = None if facts is None or IS_DRIVERLESS or not cases else beside_bytes(cases[0])
    work = partial(on_cpu if facts is None else on_gpu, gpu=gpu)
    outcomes = run_all(work, cases, workers=args.workers or num_workers(facts), seconds=args.seconds)
    head = heading(facts, time.monotonic() - began)
    if facts is None:
        page = cpu_document(head, outcomes)
    else:
        known = next((context_of(card) for card in CARDS.values() if card.name == facts["name"]), USUAL_CONTEXT)
        page = gpu_document(head, outcomes, beside, known.predicted_bytes)
    if args.no_write:
        print(page)
    else:
        name = "predict-accuracy-driverless" if IS_DRIVERLESS else "predict-accuracy"
        path = RESULTS / f"{name}-{datetime.date.today().isoformat()}.md"
        path.write_text(page, encoding="utf-8")
        print(f"wrote {path.relative_to(ROOT)}")
    return 0 if any(one.real is not None for one in outcomes) else 1


if __name__ == "__main__":
    sys.exit(main())
