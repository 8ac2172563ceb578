"""The accuracy matrix: many ways to train, each recorded by memtrace and compared with its own account, run bare.

    python benchmarks/accuracy.py [--only WORD …] [--workers 2] [--results build/accuracy.jsonl] [--no-write]
    python benchmarks/accuracy.py --device cuda [--sample 60 --seed 1]

Every combination of model, optimizer, precision, mode and parallelism that torch can run on the CPU, and a few special
cases. Results are appended to a file of JSON lines as they come; a run that is started again leaves out what the same
code has done already. At the end the table is written to `docs/accuracy.md`; of CUDA, which needs two GPUs, or the
stand-ins for two (`python -m memtrace.driverless.start --devices 2 -- …`), to `benchmarks/results/`. Exit status 1 says
that a promise was not kept somewhere.
"""

from __future__ import annotations

import argparse
import datetime
import hashlib
import json
import os
import platform
import random
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

# Before torch is loaded: what its threads allocate is not seen, and two ranks share this machine.
os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.matrix.runs import (  # noqa: E402
    WHERE,
    Config,
    account,
    full_matrix,
    import_everything,
    kind_of_device,
    pairwise,
    record,
)
from benchmarks.matrix.table import document  # noqa: E402
from memtrace.driverless.environment import VARIABLE as DESCRIBED_DEVICES  # noqa: E402

RESULTS = ROOT / "build" / "accuracy.jsonl"
CUDA_RESULTS = ROOT / "build" / "accuracy-cuda.jsonl"
DOCUMENT = ROOT / "docs" / "accuracy.md"
STEPS = 3
CODE = ("memtrace/hooks", "memtrace/schema", "memtrace/store", "memtrace/analysis", "benchmarks/programs", "samples")


def code_digest() -> str:
    """Return a checksum of all code that a result depends on: results of other code do not count."""
    digest = hashlib.sha256()
    for folder in CODE:
        for path in sorted((ROOT / folder).rglob("*.py")):
            digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def run_one(config: Config, folder: Path, counted: dict[Config, list[str]]) -> dict[str, Any]:
    """Record a configuration, run it bare, and return its row of results.

    What autograd saves does not depend on the optimizer: it is counted once for all of them, and kept in `counted`.
    """
    from benchmarks.matrix.compare import compare, worst
    from memtrace.store.reading.read import read_trace

    start = time.monotonic()
    try:
        ranks = [rank for path in record(config, folder, STEPS) for rank in read_trace(path).ranks]
        owners = account(config, folder, STEPS, "account")
        saved = count_saved(_forward_of(config), folder, counted)
        devices = ["cpu" if config.device == "cpu" else f"cuda:{rank}" for rank in range(config.num_ranks)]
        compared = zip(ranks, owners, saved, devices, strict=True)
        errors = worst([compare(*one, device=device) for *one, device in compared])
    except RuntimeError as error:
        return {"failed": str(error)[-2000:]}
    return {"errors": asdict(errors), "is_exact": errors.is_exact, "seconds": round(time.monotonic() - start, 1)}


def _forward_of(config: Config) -> Config:
    """Return the configuration that stands for all that have the same forward pass."""
    return replace(config, optimizer="sgd")


def count_saved(config: Config, folder: Path, counted: dict[Config, list[str]]) -> list[Path]:
    """Return the count of saved tensors of each rank."""
    if config not in counted:
        counted[config] = [path.read_text() for path in account(config, folder, STEPS, "count-saved")]
    paths = [folder / f"saved{rank}.json" for rank in range(config.num_ranks)]
    for path, text in zip(paths, counted[config], strict=True):
        path.write_text(text)
    return paths


def work(configs: Sequence[Config], results: Path, digest: str) -> None:
    """Run configurations one after the other and append a line for each; a line is one write, so workers do not mix."""
    import_everything()
    counted: dict[Config, list[str]] = {}
    for config in configs:
        with tempfile.TemporaryDirectory() as folder:
            row = {"name": config.name, "code": digest, **run_one(config, Path(folder), counted)}
        with results.open("a", encoding="utf-8", buffering=1) as file:
            file.write(json.dumps(row) + "\n")
        state = "failed" if "failed" in row else "exact" if row["is_exact"] else "NOT EXACT"
        print(f"{config.name}: {state}", flush=True)


def read_results(path: Path, digest: str) -> dict[str, dict[str, Any]]:
    """Return the rows by name that this code has made; failures are tried again."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    rows = (row for line in lines if (row := _parsed(line)) is not None)
    return {row["name"]: row for row in rows if row["code"] == digest and "failed" not in row}


def _parsed(line: str) -> dict[str, Any] | None:
    """Return a row; `None` for a line that was cut off."""
    try:
        row: dict[str, Any] = json.loads(line)
    except ValueError:
        return None
    return row


def run_workers(configs: Sequence[Config], arguments: argparse.Namespace, digest: str) -> None:
    """Run configurations in worker processes: each imports torch once and forks for every run."""
    shares: list[list[str]] = [[] for _ in range(arguments.workers)]
    for config in configs:
        # All optimizers of one forward pass go to one worker, which counts its saved tensors once.
        shares[zlib.crc32(_forward_of(config).name.encode()) % arguments.workers].append(config.name)
    command = [sys.executable, __file__, "--device", arguments.device, "--results", str(arguments.results), "--work"]
    workers = [subprocess.Popen(command, stdin=subprocess.PIPE, text=True) for share in shares if share]
    for worker, share in zip(workers, filter(None, shares), strict=True):
        assert worker.stdin is not None
        worker.stdin.write(json.dumps([digest, share]))
        worker.stdin.close()
    for worker in workers:
        worker.wait()


def environment(arguments: argparse.Namespace) -> dict[str, str]:
    """Return what the results were made with, and how."""
    names = ("torch", "transformers")
    title = WHERE[kind_of_device(arguments.device)]
    command, where = "make accuracy", "on the CPU, with two gloo ranks where it is parallel"
    if arguments.device == "cuda":
        command = "python benchmarks/accuracy.py --device cuda"
        where = "on GPUs, with two NCCL ranks where it is parallel"
        if (described := os.environ.get(DESCRIBED_DEVICES)) is not None:
            gpu = dict(one.split("=", 1) for one in described.split(";"))["name"]
            where = f"as on {gpu} that was not there (docs/driverless.md), with two ranks where it is parallel"
    if arguments.sample is not None:
        command += f" --sample {arguments.sample} --seed {arguments.seed}"
    return {
        "date": datetime.date.today().isoformat(),
        "python": platform.python_version(),
        "title": title,
        "command": command,
        "where": where,
        **{name: version(name) for name in names},
    }


def page(arguments: argparse.Namespace) -> Path:
    """Return the file that the table goes to."""
    if arguments.device == "cpu":
        return DOCUMENT
    kind = kind_of_device(arguments.device)
    return ROOT / "benchmarks" / "results" / f"accuracy-{kind}-{datetime.date.today().isoformat()}.md"


def selected(arguments: argparse.Namespace) -> list[Config]:
    """Return the configurations that are asked for: whose names hold all words, and of those perhaps a sample."""
    found = [config for config in full_matrix(arguments.device) if set(arguments.only) <= set(config.name.split())]
    return list(found if arguments.sample is None else sampled(found, arguments.sample, arguments.seed))


def sampled(configs: Sequence[Config], count: int, seed: int) -> Iterator[Config]:
    """Yield the few that hold every pair of choices, and as many others by a seed as make up the count."""
    first = pairwise(configs)
    yield from first
    others = [config for config in configs if config not in set(first)]
    yield from random.Random(seed).sample(others, min(max(count - len(first), 0), len(others)))


def main() -> int:
    """Run what is missing, write the table, and say how it went."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", default=(), help="words that a configuration's name must hold")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--results", type=Path, help="default: build/accuracy.jsonl, of CUDA accuracy-cuda.jsonl")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--sample", type=int, help="run so many: every pair of choices, and others by the seed")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--no-write", action="store_true", help="leave docs/accuracy.md alone")
    parser.add_argument("--work", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    arguments.results = arguments.results or (RESULTS if arguments.device == "cpu" else CUDA_RESULTS)
    by_name = {config.name: config for config in full_matrix(arguments.device)}
    if arguments.work:
        digest, names = json.load(sys.stdin)
        work([by_name[name] for name in names], arguments.results, digest)
        return 0
    digest = code_digest()
    wanted = selected(arguments)
    arguments.results.parent.mkdir(parents=True, exist_ok=True)
    done = read_results(arguments.results, digest)
    # First a few that touch everything, then those that take one process, then the rest in any order that is always the
    # same: a run that is broken off has touched as much as it could.
    first = set(pairwise(wanted))
    missing = [config for config in wanted if config.name not in done]
    missing.sort(key=lambda config: (config not in first, config.num_ranks, zlib.crc32(config.name.encode())))
    print(f"{len(wanted)} configurations, {len(missing)} to run", flush=True)
    run_workers(missing, arguments, digest)
    rows = read_results(arguments.results, digest)
    found = [(config, rows[config.name]) for config in wanted if config.name in rows]
    is_whole = not arguments.only and (arguments.sample is None or arguments.device != "cpu")
    if not arguments.no_write and is_whole and found:
        text = document(found, len(full_matrix()), environment(arguments))
        page(arguments).write_text(text, encoding="utf-8")
    bad = [config.name for config, row in found if not row["is_exact"]]
    print(f"{len(found)} of {len(wanted)} ran, {len(bad)} not exact", *bad, sep="\n")
    return 1 if bad or len(found) < len(wanted) else 0


if __name__ == "__main__":
    sys.exit(main())
