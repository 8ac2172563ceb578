"""Running small programs under `memtrace record`, and bare, in processes of their own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from memtrace.store.reading.read import read_trace
from memtrace.store.trace import RankTrace, Trace

TRAIN = """
import sys
import torch

torch.manual_seed(0)
model = torch.nn.Linear(16, 16)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

def train(num_steps, at=lambda step: None):
    for step in range(1, num_steps + 1):
        loss = model(torch.randn(4, 16)).pow(2).mean()
        loss.backward()
        at(step)
        optimizer.step()
        optimizer.zero_grad()
        print(step, loss.item(), flush=True)
"""
"""A training script without its last line: `train(3)`."""


@dataclass
class Ran:
    """What came of a program: `stderr` is the program's own, `said` what memtrace added after it."""

    returncode: int
    stdout: bytes
    stderr: bytes
    said: str = ""


@dataclass
class Workplace:
    """A folder with programs in it."""

    folder: Path
    quiet: bool = True
    """Whether recordings end without a card, which costs an analysis."""

    def write(self, name: str, source: str, *, trains: bool = True) -> Path:
        """Write a program; it begins with a model and a function `train`."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text((TRAIN if trains else "") + textwrap.dedent(source))
        return path

    def bare(self, *command: str | Path, **environ: str) -> Ran:
        """Run a command without memtrace."""
        ran = subprocess.run(list(map(str, command)), **self._settings(environ))  # type: ignore[call-overload]
        return Ran(ran.returncode, ran.stdout, ran.stderr)

    def record(self, *command: str | Path, options: Sequence[str | Path] = ("-o", "t.json"), **environ: str) -> Ran:
        """Run a command under `memtrace record`."""
        ran = subprocess.run(self.line(*command, options=options), **self._settings(environ))  # type: ignore[call-overload]
        own, said = split_said(ran.stderr)
        return Ran(ran.returncode, ran.stdout, own, said)

    def start(
        self, *command: str | Path, options: Sequence[str | Path] = ("-o", "t.json"), **environ: str
    ) -> subprocess.Popen[bytes]:
        """Start `memtrace record` in a process group of its own and return its process."""
        return subprocess.Popen(
            self.line(*command, options=options),
            cwd=self.folder,
            env=self._environ(environ),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )

    def line(self, *command: str | Path, options: Sequence[str | Path]) -> list[str]:
        """Return the command line of a recording."""
        quiet = ["--quiet"] if self.quiet else []
        return [sys.executable, "-m", "memtrace", "record", *quiet, *map(str, options), "--", *map(str, command)]

    def trace(self, name: str = "t.json") -> Trace:
        """Return the trace that was written."""
        return read_trace(self.folder / name)

    def rank(self, name: str = "t.json") -> RankTrace:
        """Return the only process of the trace that was written."""
        (rank,) = self.trace(name).ranks
        return rank

    def _environ(self, more: dict[str, str]) -> dict[str, str]:
        # One thread: the machine that runs the tests has few cores, and sums stay the same.
        return {**os.environ, "OMP_NUM_THREADS": "1", **more}

    def _settings(self, environ: dict[str, str]) -> dict[str, object]:
        return {"cwd": self.folder, "env": self._environ(environ), "capture_output": True, "timeout": 120}


def split_said(stderr: bytes) -> tuple[bytes, str]:
    """Return the program's stderr and the lines that the launcher added at its end."""
    for start in (
        b"Wrote ",
        b"memtrace: nothing was recorded",
        b"memtrace: the recording could not",
        b"memtrace: A pro",
    ):
        at = stderr.rfind(b"\n" + start) + 1 if not stderr.startswith(start) else 0
        if at or stderr.startswith(start):
            return stderr[:at], stderr[at:].decode()
    return stderr, ""


@pytest.fixture(scope="session", autouse=True)
def _signals_as_in_a_terminal() -> None:
    """Take back that signals are ignored: under nohup they are, and every process of the tests would inherit it."""
    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def work(tmp_path: Path) -> Workplace:
    """An empty folder to run programs in."""
    return Workplace(tmp_path)


@pytest.fixture
def python() -> str:
    """The Python of the tests, whose environment has torch and memtrace."""
    return sys.executable
