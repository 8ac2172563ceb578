"""The action for pull requests, run as GitHub would run its script: summary, outputs, comment and exit code."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.allocator.simulated import write_snapshot
from tests.conftest import ROOT

MIB = 1 << 20
ACTION, SCRIPT = ROOT / "action.yml", ROOT / ".ci/check-memory"


@pytest.fixture
def job(tmp_path: Path) -> Path:
    """A folder with the traces of two commits, and with a `gh` that writes down what it is asked."""
    write_snapshot(tmp_path / "main.pickle", 40 * MIB)
    write_snapshot(tmp_path / "branch.pickle", 42 * MIB)
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "gh").write_text(f'#!/bin/sh\necho "$@" >>"{tmp_path}/asked"\ncat "$5" >"{tmp_path}/comment.md"\n')
    (programs / "gh").chmod(0o755)
    (programs / "python").write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    (programs / "python").chmod(0o755)
    return tmp_path


def run(job: Path, **inputs: str) -> subprocess.CompletedProcess[str]:
    environ = {
        **os.environ,
        "PATH": f"{job / 'bin'}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "GITHUB_STEP_SUMMARY": str(job / "summary.md"),
        "GITHUB_OUTPUT": str(job / "outputs"),
        **{f"MEMTRACE_{name.upper()}": value for name, value in inputs.items()},
    }
    return subprocess.run([SCRIPT], cwd=job, env=environ, capture_output=True, text=True, timeout=120)


def test_a_pull_request_that_needs_more_fails_and_is_told_why(job: Path) -> None:
    done = run(job, trace="branch.pickle", baseline="main.pickle", comment="true", pull_request="7")
    assert (done.returncode, "warning" in done.stderr) == (3, False)
    assert (job / "asked").read_text().startswith("pr comment 7 --body-file ")
    comment = (job / "comment.md").read_text()
    assert comment == (job / "summary.md").read_text()
    assert comment.startswith(
        "<!-- memtrace -->\n### memtrace check: failed, WORSE: peak 40.0 MiB to 42.0 MiB (+5.0 %)"
    )
    assert "Memory peaks at 42.0 MiB" in comment
    assert (job / "outputs").read_text() == "passed=false\nverdict=WORSE\n"


def test_the_first_run_has_no_baseline_and_keeps_its_budgets(job: Path) -> None:
    done = run(job, trace="branch.pickle", baseline="nowhere.json", budgets="peak=42MiB\n\nreserved=1GiB\n")
    assert done.returncode == 0, done.stderr
    assert (job / "outputs").read_text() == "passed=true\nverdict=\n"
    assert not (job / "asked").exists()


def test_what_cannot_be_checked_is_an_error_and_no_result(job: Path) -> None:
    done = run(job, trace="branch.pickle", budgets="$(touch run)=1GiB", comment="true", pull_request="7")
    assert done.returncode == 2
    assert "not a budget" in done.stderr
    assert not [name for name in ("run", "summary.md", "comment.md") if (job / name).exists()]


def test_the_action_hands_every_input_to_the_script() -> None:
    text, script = ACTION.read_text(), SCRIPT.read_text()
    inputs = re.findall(r"^  (\w+):$", text.partition("inputs:")[2].partition("outputs:")[0], re.MULTILINE)
    assert set(re.findall(r"inputs\.(\w+) }}", text)) == set(inputs)
    assert set(re.findall(r"MEMTRACE_[A-Z_]+", text)) == set(re.findall(r"MEMTRACE_[A-Z_]+", script))
