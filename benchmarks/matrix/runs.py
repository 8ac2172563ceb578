"""Running the training program many times: recorded by memtrace, and bare with its own account of its memory.

Importing torch and transformers takes several times as long as a small training. So one process imports them, does
nothing else with them, and forks a child for every run (for every rank of it). A child records itself with
`memtrace.start()` around the script, which itself knows nothing of memtrace.
"""

from __future__ import annotations

import importlib
import os
import runpy
import socket
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations, product
from pathlib import Path
from typing import Protocol

from memtrace.driverless.environment import VARIABLE as DESCRIBED_DEVICES

PROGRAM = Path(__file__).parent.parent / "programs" / "train.py"
MODELS = ("gpt", "resnet", "gpt2", "llama")
OPTIMIZERS = ("adamw-foreach", "adamw-loop", "adamw-fused", "sgd", "sgd-momentum", "adafactor")
PRECISIONS = ("fp32", "bf16")
MODES = ("plain", "accumulate", "checkpoint", "keep-grads")
PARALLEL = ("none", "ddp", "ddp-views", "fsdp2")
NUM_RANKS = 2
MAX_SECONDS = 180
WHERE = {"cpu": "", "cuda": " on CUDA", "driverless": " on CUDA without a GPU"}
"""What a heading says of the kind of device."""


@dataclass(frozen=True, slots=True)
class Config:
    """One way to train."""

    model: str
    optimizer: str
    precision: str
    mode: str
    parallel: str
    extra: tuple[str, ...] = ()
    device: str = "cpu"

    @property
    def name(self) -> str:
        """A name for tables, unique among configurations of one device."""
        return " ".join((self.model, self.optimizer, self.precision, self.mode, self.parallel, *self.extra))

    @property
    def num_ranks(self) -> int:
        """Processes that it takes."""
        return 1 if self.parallel == "none" else NUM_RANKS

    def arguments(self, steps: int) -> list[str]:
        """Return the program's arguments."""
        names = ("model", "optimizer", "precision", "mode", "parallel", "device")
        given = [word for name in names for word in (f"--{name}", str(getattr(self, name)))]
        return [*given, "--steps", str(steps), *(("--extra", *self.extra) if self.extra else ())]


def full_matrix(device: str = "cpu") -> list[Config]:
    """Return every combination that torch can run, and the special cases."""
    return [replace(config, device=device) for config in (*combinations_of_all(), *special_cases())]


def combinations_of_all() -> list[Config]:
    """Return every combination of model, optimizer, precision, mode and parallelism that torch can run."""
    every = (Config(*choice) for choice in product(MODELS, OPTIMIZERS, PRECISIONS, MODES, PARALLEL))
    return list(filter(is_possible, every))


def special_cases() -> list[Config]:
    """Return what real programs do besides: clip gradients, keep an average, wrap the model, write attention out."""
    plain = [("gpt", "explicit"), ("gpt2", "explicit"), ("llama", "explicit")]
    several = [(model, extra) for model in MODELS for extra in ("clip", "ema", "wrapped")]
    return [Config(model, "adamw-foreach", "fp32", "plain", "none", (extra,)) for model, extra in plain + several]


def is_possible(config: Config) -> bool:
    """Return whether torch can run a combination: its Adafactor cannot be used on sharded parameters."""
    return not (config.parallel == "fsdp2" and config.optimizer == "adafactor")


def pairwise(configs: Sequence[Config]) -> list[Config]:
    """Return a small choice in which every pair of values of two dimensions that occurs at all occurs: greedily.

    >>> few = pairwise(full_matrix())
    >>> len(few) < len(full_matrix()) / 10, missing_pairs(few, full_matrix())
    (True, set())
    """
    left = set().union(*map(_pairs, configs))
    chosen = []
    while left:
        best = max(configs, key=lambda config: len(_pairs(config) & left))
        chosen.append(best)
        left -= _pairs(best)
    return chosen


def missing_pairs(chosen: Sequence[Config], configs: Sequence[Config]) -> set[tuple[object, ...]]:
    """Return the pairs of values that occur in `configs` but not in `chosen`."""
    return set().union(*map(_pairs, configs)) - set().union(*map(_pairs, chosen))


def _pairs(config: Config) -> set[tuple[object, ...]]:
    names = ("model", "optimizer", "precision", "mode", "parallel", "extra")
    values = [(name, getattr(config, name)) for name in names]
    return {(*one, *other) for one, other in combinations(values, 2)}


def kind_of_device(device: str) -> str:
    """Return "cpu", "cuda", or "driverless" where the GPU is not there."""
    return "driverless" if device == "cuda" and DESCRIBED_DEVICES in os.environ else device


def import_everything() -> None:
    """Import what the children need. Nothing may be computed here: torch's threads would not survive a fork."""
    for name in (
        "torch",
        "torch._dynamo",  # which the first optimizer imports
        "torch.utils.checkpoint",
        "torch.distributed.fsdp",
        "transformers",
        "memtrace.store.reading.read",
    ):
        importlib.import_module(name)
    for model in ("gpt2", "llama"):
        importlib.import_module(f"transformers.models.{model}.modeling_{model}")


class Run(Protocol):
    """What can be recorded: the program's arguments, and how many processes it takes."""

    @property
    def name(self) -> str:
        """A name for messages."""

    @property
    def num_ranks(self) -> int:
        """Processes that it takes."""

    def arguments(self, steps: int) -> list[str]:
        """Return the program's arguments."""


def record(run: Run, folder: Path, steps: int, *, program: Path = PROGRAM) -> list[Path]:
    """Run recorded and return the trace of each rank."""
    paths = [folder / f"trace{rank}.json" for rank in range(run.num_ranks)]
    _run_ranks(run, lambda rank: _run_recorded(program, run.arguments(steps), paths[rank]), folder)
    return paths


def account(config: Config, folder: Path, steps: int, kind: str) -> list[Path]:
    """Run bare and return the program's own account, of `kind` "account" or "count-saved", of each rank."""
    paths = [folder / f"{kind}{rank}.json" for rank in range(config.num_ranks)]
    arguments = config.arguments(steps)
    _run_ranks(config, lambda rank: _run_script(PROGRAM, [*arguments, f"--{kind}", str(paths[rank])]), folder)
    return paths


def _run_recorded(program: Path, arguments: list[str], path: Path) -> None:
    import memtrace

    memtrace.start(path, force=True)
    try:
        _run_script(program, arguments)
    finally:
        memtrace.stop()


def _run_script(program: Path, arguments: list[str]) -> None:
    sys.argv = [str(program), *arguments]
    runpy.run_path(str(program), run_name="__main__")


def _run_ranks(config: Run, run: Callable[[int], None], folder: Path) -> None:
    port = _free_port()
    logs = [folder / f"log{rank}.txt" for rank in range(config.num_ranks)]
    children = [_fork(run, rank, config.num_ranks, port, log) for rank, log in enumerate(logs)]
    failed = [rank for rank, status in _wait(children) if status]
    if failed:
        raise RuntimeError(f"{config.name}: rank {failed[0]} failed\n{logs[failed[0]].read_text(errors='replace')}")


def _fork(run: Callable[[int], None], rank: int, num_ranks: int, port: int, log: Path) -> int:
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(file, 1)
        os.dup2(file, 2)
        if num_ranks > 1:
            names = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": num_ranks, "MASTER_PORT": port}
            os.environ.update({name: str(value) for name, value in names.items()})
            os.environ["MASTER_ADDR"] = "127.0.0.1"
        run(rank)
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _wait(children: list[int]) -> Iterator[tuple[int, int]]:
    """Yield rank and status of each child; a rank whose peer has died waits in a collective until it is ended."""
    deadline = time.monotonic() + MAX_SECONDS
    running = dict(zip(children, range(len(children)), strict=True))
    while running:
        child, status = os.waitpid(-1, os.WNOHANG)
        if child in running:
            yield running.pop(child), status
            if status:
                deadline = min(deadline, time.monotonic() + 2)
        elif time.monotonic() > deadline:
            for one in running:
                os.kill(one, 9)
            deadline = float("inf")
        else:
            time.sleep(0.01)


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])
