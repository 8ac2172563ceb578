"""Runs `memtrace predict` of programs that tests write; each program asserts what it sees and prints "done"."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from memtrace.store.reading.read import read_trace
from memtrace.store.trace import RankTrace
from tests.warm.start import warm_python


def predict(folder: Path, source: str, *options: str, status: int = 0) -> subprocess.CompletedProcess[str]:
    """Predict a program, which runs to its own end, and return what was printed."""
    path = folder / "program.py"
    path.write_text(source, encoding="utf-8")
    words = ["predict", "--force", "-o", str(folder / "predicted.json"), "--steps", "1000", *options]
    done = subprocess.run(
        [sys.executable, "-m", "memtrace", *words, "--", warm_python(), str(path)],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == status, done.stdout + done.stderr
    assert status or "done" in done.stdout.splitlines(), done.stdout + done.stderr
    return done


def predicted_rank(folder: Path) -> RankTrace:
    """Return what the last prediction in a folder wrote."""
    (rank,) = read_trace([folder / "predicted.json"]).ranks
    return rank


def notes(folder: Path) -> set[str]:
    """Return the slugs of what the last prediction in a folder warns of."""
    return {warning.slug for warning in predicted_rank(folder).warnings}
