"""Two launchers that start at the same moment in one folder, without a name for what they write: each takes its own."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

_PROGRAM = Path(__file__).parent / "trainer.py"
_PATIENCE_S = 120.0


@dataclass(frozen=True, slots=True)
class Pair:
    """What came of two launchers."""

    num_refused: int
    """How many did not record."""
    num_traces: int
    """Traces that lie there."""


def start_pair(python: str) -> Pair:
    """Start two, each with a program that trains a step, and wait for both."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        progress = folder / "progress"
        progress.touch()
        command = [sys.executable, "-m", "memtrace", "record", "--", python, str(_PROGRAM), str(progress), "1"]
        environ = {**os.environ, "OMP_NUM_THREADS": "1"}
        pair = [
            subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=folder, env=environ)
            for _ in range(2)
        ]
        statuses = [one.wait(_PATIENCE_S) for one in pair]
        return Pair(sum(status != 0 for status in statuses), len(list(folder.glob("*.json"))))
