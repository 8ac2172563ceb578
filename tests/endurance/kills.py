"""Recordings whose program is killed at a random moment: no step that had ended may be missing."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from memtrace.store.reading.read import read_trace

_PROGRAM = Path(__file__).parent / "trainer.py"
_WINDOWS = ("last2", "1-3,last2")
_LONGEST_S = 1.5
_PATIENCE_S = 120.0


@dataclass(frozen=True, slots=True)
class Killed:
    """What is left of a program that was killed."""

    window: str
    """The steps that were to be kept."""
    num_ended: int
    """Steps whose end the program had told of."""
    lost: tuple[int, ...]
    """Of these, those that the trace does not know to have ended, or to have recorded where they were to be kept."""


def kill_once(number: int, seed: int) -> Killed:
    """Record a program, kill it after a time that the seed and the number give, and compare what is there.

    Raises:
        RuntimeError: the program does not begin, or the launcher does not end as it should.
    """
    rng = random.Random(f"{seed} {number}")
    window, wait_s = rng.choice(_WINDOWS), rng.uniform(0, _LONGEST_S)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        progress = folder / "progress"
        progress.touch()
        command = [sys.executable, "-m", "memtrace", "record", "--steps", window, "-o", str(folder / "t.json"), "--"]
        launcher = subprocess.Popen(
            [*command, sys.executable, str(_PROGRAM), str(progress), "1000000"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd=folder,
        )
        pid = _pid_in(progress, launcher)
        time.sleep(wait_s)
        os.kill(pid, signal.SIGKILL)
        status = launcher.wait(_PATIENCE_S)
        if status not in (-signal.SIGKILL, 128 + signal.SIGKILL):
            raise RuntimeError(f"the launcher ended with {status}")
        num_ended = len(progress.read_text(encoding="utf-8").split()) - 1
        return Killed(window, num_ended, tuple(_lost(folder / "t.json", num_ended, window)))


def _pid_in(progress: Path, launcher: subprocess.Popen[bytes]) -> int:
    """Return the program's, once it has told it: it is about to train."""
    began = time.monotonic()
    while not (said := progress.read_text(encoding="utf-8").split()):
        if launcher.poll() is not None or time.monotonic() > began + _PATIENCE_S:
            raise RuntimeError("the program did not begin")
        time.sleep(0.005)
    return int(said[0])


def _lost(path: Path, num_ended: int, window: str) -> list[int]:
    (rank,) = read_trace([path]).ranks
    rows = {row["step"]: row for row in rank.table("steps").rows() if row["end_ns"] is not None and row["step"] > 0}
    # It may have been killed before it said so.
    last = max([num_ended, *rows])
    kept = {last - 1, last} | ({1, 2, 3} if window.startswith("1-3") else set())
    return [
        step for step in range(1, num_ended + 1) if step not in rows or (step in kept and not rows[step]["recorded"])
    ]
