"""Injects each fault of table.py into a copy of the tree and runs the tests that must find it.

Run it as `python -m tests.faults [WORD]...`.

In: words, of which the name or the module of a fault must hold one; without words all. Out: a line a fault. Exit code 1
where a fault survives, where the text that it replaces is not there exactly once, or where tests fail without any.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tests.faults.table import FAULTS, Fault

ROOT = Path(__file__).parents[2]
COPIED = ("memtrace", "tests", "samples", "viewers", "benchmarks", "docs", "pyproject.toml", "README.md")
"""What tests may read of the tree."""
TIMEOUT_S = 300


def main(words: Sequence[str]) -> int:
    """Try the chosen faults and return the exit code."""
    chosen = [one for one in FAULTS if not words or any(word in f"{one.name} {one.module}" for word in words)]
    with tempfile.TemporaryDirectory(prefix="memtrace-faults-") as folder:
        tree = Path(folder) / "tree"
        _copy(tree)
        whole = sorted({test for one in chosen for test in one.tests})
        if not _passes(tree, whole):
            print("These tests fail without any fault:", *whole)
            return 1
        answers = [_try(tree, one) for one in chosen]
    print(f"{answers.count('killed')} of {len(chosen)} faults killed")
    return 0 if chosen and set(answers) == {"killed"} else 1


def _copy(tree: Path) -> None:
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, tree / name, ignore=shutil.ignore_patterns("__pycache__", "node_modules"))
        else:
            shutil.copy(source, tree / name)


def _try(tree: Path, fault: Fault) -> str:
    """Inject a fault, run its tests, take it out again, and return and print what came of it."""
    path = tree / Path(*fault.module.split(".")).with_suffix(".py")
    before = path.read_text(encoding="utf-8") if path.is_file() else ""
    number = before.count(fault.old)
    if number == 1:
        path.write_text(before.replace(fault.old, fault.new), encoding="utf-8")
        answer = "SURVIVED" if _passes(tree, fault.tests) else "killed"
        path.write_text(before, encoding="utf-8")
    else:
        answer = f"NOT FOUND ({number} times)"
    print(f"{answer:8}  {fault.module.removeprefix('memtrace.')}: {fault.name}", flush=True)
    return answer


def _passes(tree: Path, tests: Sequence[str]) -> bool:
    """Return whether tests pass in the copy; one that cannot be run passes as little as one that fails.

    Nothing is compiled to files: the next fault in the same module may be written within the same second and be as
    long, so that Python would take the old code for the new.
    """
    command = [sys.executable, "-B", "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *tests]
    environment = {**os.environ, "PYTHONPATH": str(tree), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(command, cwd=tree, env=environment, capture_output=True, text=True, timeout=TIMEOUT_S)
    if done.returncode not in (0, 1):
        # A fault that breaks the import of a test would be no test of the test.
        print(done.stdout[-2000:], done.stderr[-2000:], sep="\n", file=sys.stderr)
        raise SystemExit(f"pytest itself ended with {done.returncode}")
    return done.returncode == 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
