"""Broken inputs for some seconds, with another seed each time; `make fuzz` goes on for an hour.

`MEMTRACE_FUZZ_SEED` names the seed, as `.ci/run` does: there a change is judged, and not luck.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from memtrace.cli import COMMANDS, group
from tests.fuzz import ask as asking
from tests.fuzz import questions as questions_
from tests.fuzz.broken_input import KINDS, BrokenInput, make_input
from tests.fuzz.workers import LIMIT_S

SECONDS = 20
NOT_ASKED = {"record", "predict", "fit", "bisect", "mcp"}
"""They run a program. What `fit` and the server read is asked about in other ways."""


@pytest.mark.slow
def test_no_broken_input_ends_in_a_traceback(repo_root: Path) -> None:
    seed = int(os.environ.get("MEMTRACE_FUZZ_SEED") or random.SystemRandom().randrange(10**9))
    command = [sys.executable, "-m", "tests.fuzz", "--seed", str(seed), "--seconds", str(SECONDS), "--workers", "1"]
    done = subprocess.run(command, cwd=repo_root, capture_output=True, text=True, timeout=SECONDS + 15 * LIMIT_S)
    print(done.stdout)
    assert done.returncode == 0, (
        f"a broken input: see the line `again:` for how to repeat it\n{done.stdout}{done.stderr}"
    )
    assert f"seed {seed}: " in done.stdout


def test_an_input_is_decided_by_seed_and_number(tmp_path: Path) -> None:
    for number in range(40):
        made = []
        for name in ("first", "again"):
            folder = tmp_path / f"{number}-{name}"
            folder.mkdir()
            input_ = make_input(random.Random(f"5:{number}"), folder)
            files = sorted(path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
            made.append((input_.what, [(path.relative_to(folder), path.read_bytes()) for path in files]))
        assert made[0] == made[1]


def test_every_command_that_reads_is_asked() -> None:
    asked = set()
    for kind in KINDS:
        for number in range(300):
            made = BrokenInput(kind=kind, path=Path("input"))
            found = questions_.questions(random.Random(number), made, sound="sound", output="output")
            asked |= {words[0] for words in found}
    assert set(COMMANDS) - NOT_ASKED <= asked
    assert {"mcp", "show", "fit-state"} <= asked


def test_an_exception_is_a_failure_that_says_where(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from memtrace.store.reading import read

    def broken(*_: object) -> None:
        raise ZeroDivisionError("odd")

    path = tmp_path / "trace.json"
    path.write_text("{}")
    assert asking.ask(["inspect", str(path)]) is None
    monkeypatch.setattr(read, "parse_json", lambda *_, **__: broken())
    failure = asking.ask(["inspect", str(path)])
    assert failure is not None
    assert failure.group.startswith("ZeroDivisionError at ")
    assert "Traceback" in failure.text


def test_wrong_usage_and_errors_are_no_failures() -> None:
    for words in (["report"], ["report", "nothing.json"], ["inspect", "nothing.json", "--head", "-1"]):
        assert CliRunner().invoke(group, words).exit_code in (1, 2)
        assert asking.ask(words) is None
