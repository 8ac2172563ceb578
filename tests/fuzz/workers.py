"""Asking in processes of their own, with a limit of time for each input and of memory for each process.

An input that takes longer than the limit is tried once more, alone in a fresh process: others may have kept the machine
busy.
"""

from __future__ import annotations

import contextlib
import importlib
import multiprocessing
import os
import pkgutil
import random
import resource
import shutil
import tempfile
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path

import memtrace
from memtrace.parallel import run as parallel_run
from tests.fuzz.ask import Failure, ask
from tests.fuzz.broken_input import make_input
from tests.fuzz.corpus import RECORDED
from tests.fuzz.questions import questions

_TRAINERS = ("jupyter", "lightning", "training", "transformers", "pytest_plugin")
_NOT_IMPORTED = ("memtrace.hooks", "memtrace.__main__", *(f"memtrace.integrations.{one}" for one in _TRAINERS))
LIMIT_S = 10.0
"""Most seconds for one input: of computing, or of waiting for something else than a processor."""
MOST_S = 120.0
"""And most seconds of a clock, however busy the machine is with something else."""
MAX_BYTES = 1 << 30
"""Most memory that one input may take, beside what the process has before it."""
_MORE_ADDRESSES = 2 << 30
"""Most memory that a process may ask the system for, beside what it begins with."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What came of one input."""

    number: int
    failures: tuple[Failure, ...]
    num_questions: int
    seconds: float
    """Of computing."""
    peak_bytes: int
    """Resident memory that it took, beside what the process had before."""


def try_inputs(seed: int, numbers: Iterator[int], *, num_workers: int) -> Iterator[Outcome]:
    """Yield what came of each input, in the order in which they are done."""
    _import_memtrace()
    workers = [_Worker(seed) for _ in range(num_workers)]
    try:
        busy = {worker for worker in workers if worker.give(next(numbers, None))}
        while busy:
            ready = wait([worker.pipe for worker in busy], timeout=0.5)
            for worker in list(busy):
                if worker.pipe in ready or worker.is_late():
                    outcome = worker.outcome()
                    if outcome is None:
                        continue
                    yield outcome
                    if not worker.give(next(numbers, None)):
                        busy.discard(worker)
    finally:
        for worker in workers:
            worker.end()


def _import_memtrace() -> None:
    """Import all that reads, once for all processes; what needs a package that is not there is left out."""
    for module in pkgutil.walk_packages(memtrace.__path__, "memtrace.", onerror=lambda _: None):
        if not module.name.startswith(_NOT_IMPORTED):
            with contextlib.suppress(ImportError):
                importlib.import_module(module.name)


class _Worker:
    """One process that asks."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._number = 0
        self._since = self._computed = 0.0
        self._is_again = False
        self._start()

    def _start(self) -> None:
        # Forked: this process has imported what memtrace imports, and runs no threads.
        context = multiprocessing.get_context("fork")
        self.pipe, other = context.Pipe()
        self._process = context.Process(target=_work, args=(other, self._seed), daemon=True)
        self._process.start()
        other.close()

    def give(self, number: int | None) -> bool:
        """Give it an input; return whether there is one."""
        if number is None:
            return False
        self._number, self._since, self._is_again = number, time.monotonic(), False
        self._computed = _computed_s(self._process.pid)
        self.pipe.send(number)
        return True

    def is_late(self) -> bool:
        """Return whether its input takes too long."""
        waited = time.monotonic() - self._since
        if waited <= LIMIT_S:
            return False
        # A process that others keep from a processor is not late.
        is_computing = _is_computing(self._process.pid)
        return waited > MOST_S or not is_computing or _computed_s(self._process.pid) - self._computed > LIMIT_S

    def outcome(self) -> Outcome | None:
        """Return what came of its input; `None` if it is tried again."""
        died = "took too long"
        if self.pipe.poll():
            try:
                return self.pipe.recv()  # type: ignore[no-any-return]
            except EOFError:
                self._process.join()
                died = f"the process ended with {self._process.exitcode}"
        self.end()
        self._start()
        if not self._is_again:
            number = self._number
            self.give(number)
            self._is_again = True
            return None
        failure = Failure(words=(), group=died, text=f"input {self._number}: {died}, twice")
        return Outcome(number=self._number, failures=(failure,), num_questions=0, seconds=LIMIT_S, peak_bytes=0)

    def end(self) -> None:
        """End the process, whatever it is at."""
        self._process.kill()
        self._process.join()
        self.pipe.close()


def _work(pipe: Connection, seed: int) -> None:
    """Ask about the inputs whose numbers come, until the pipe ends."""
    parent = os.getppid()
    limit = _status_bytes("VmSize") + _MORE_ADDRESSES
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    # A process of this kind may start no others, as a large run would.
    parallel_run.num_processors = lambda: 1  # type: ignore[attr-defined]
    # What numpy and Python warn of would stand in the user's terminal.
    warnings.simplefilter("error")
    with contextlib.suppress(EOFError, KeyboardInterrupt):
        while True:
            while not pipe.poll(5):
                if os.getppid() != parent:
                    # Whoever gave the numbers was killed.
                    return
            number = pipe.recv()
            with tempfile.TemporaryDirectory(prefix="memtrace-fuzz-") as folder:
                # What has no folder in its name is written here.
                os.chdir(folder)
                pipe.send(try_input(seed, number, Path(folder)))
                os.chdir("/")


def try_input(seed: int, number: int, folder: Path) -> Outcome:
    """Make an input in an empty folder and ask about it."""
    random_ = random.Random(f"{seed}:{number}")
    began, before = time.process_time(), _reset_peak_bytes()
    made = make_input(random_, folder)
    sound = shutil.copy(RECORDED / "leak.json.gz", folder / "sound.json.gz")
    asked = questions(random_, made, sound=str(sound), output=str(folder / "output"))
    failures = [failure for words in asked if (failure := ask(words)) is not None]
    peak_bytes = max(_peak_bytes() - before, 0)
    if peak_bytes > MAX_BYTES:
        failures.append(Failure(words=(), group="too much memory", text=f"{peak_bytes} bytes for {asked}"))
    failures = [_described(failure, made.what) for failure in failures]
    return Outcome(
        number=number,
        failures=tuple(failures),
        num_questions=len(asked),
        seconds=time.process_time() - began,
        peak_bytes=peak_bytes,
    )


def _described(failure: Failure, what: list[str]) -> Failure:
    text = f"{failure.text}\n{' '.join(failure.words)[:1000]}\n{'; '.join(what)}"
    # Texts may hold what cannot be printed.
    text, group = (one.encode("ascii", "backslashreplace").decode() for one in (text, failure.group))
    return Failure(words=failure.words, group=group, text=text)


def _threads(pid: int | None) -> list[list[str]]:
    """Return what Linux tells of each thread of a process, from its state on."""
    with contextlib.suppress(OSError):
        texts = [path.read_text(errors="replace") for path in Path(f"/proc/{pid}/task").glob("*/stat")]
        return [text.rpartition(")")[2].split() for text in texts]
    return []


def _is_computing(pid: int | None) -> bool:
    """Return whether a thread of a process has a processor, or waits for one."""
    return any(one[0] == "R" for one in _threads(pid))


def _computed_s(pid: int | None) -> float:
    """Return how long the threads of a process have had a processor."""
    return sum(int(one[11]) + int(one[12]) for one in _threads(pid)) / os.sysconf("SC_CLK_TCK")


def _reset_peak_bytes() -> int:
    """Begin to measure the largest resident memory anew, and return the present one."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    return _peak_bytes()


def _peak_bytes() -> int:
    return _status_bytes("VmHWM")


def _status_bytes(name: str) -> int:
    """Return a size of this process, as Linux tells it; 0 where that is not told."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith(f"{name}:"):
                return int(line.split()[1]) * 1024
    return 0
