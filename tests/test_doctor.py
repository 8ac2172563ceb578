"""`memtrace doctor` tells the truth about the environment, and survives any torch."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from memtrace import __version__
from memtrace.cli.doctor import DEPENDENCIES, doctor, torch_facts

pytestmark = pytest.mark.process

CRASH = "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)"


def broken_torch(folder: Path, source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put a torch in front of the real one for processes started from here."""
    (folder / "torch.py").write_text(source)
    monkeypatch.setenv("PYTHONPATH", str(folder))


def test_json_holds_what_a_bug_report_needs() -> None:
    facts = json.loads(CliRunner().invoke(doctor, ["--json"]).stdout)
    assert facts["memtrace"]["version"] == __version__
    assert set(facts["dependencies"]) == set(DEPENDENCIES)
    assert all(facts["dependencies"].values())
    assert facts["torch"]["imported"] is True
    assert facts["torch"]["problem"] is None
    assert facts["torch"]["python"] == facts["python"]["version"]


def test_text_has_every_section() -> None:
    lines = CliRunner().invoke(doctor).stdout.splitlines()
    sections = [line for line in lines if not line.startswith(" ")]
    assert sections == ["memtrace:", "python:", "platform:", "dependencies:", "torch:", "environment:"]


def test_only_listed_environment_values_are_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTORCH_ALLOC_CONF", "expandable_segments:True")
    monkeypatch.setenv("WANDB_API_KEY", "a-secret")
    output = CliRunner().invoke(doctor, ["--json"]).stdout
    assert json.loads(output)["environment"]["PYTORCH_ALLOC_CONF"] == "expandable_segments:True"
    assert "a-secret" not in output


def test_a_torch_that_does_not_import_is_a_fact(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken_torch(tmp_path, "raise ImportError('libcudart.so.12: cannot open shared object file')", monkeypatch)
    facts = torch_facts(sys.executable, 60)
    assert facts["problem"] == "ImportError: libcudart.so.12: cannot open shared object file"
    assert facts["version"], "the version is known before the import"
    assert "imported" not in facts


def test_a_torch_that_crashes_is_a_fact(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken_torch(tmp_path, CRASH, monkeypatch)
    assert torch_facts(sys.executable, 60)["problem"] == "ended by SIGSEGV"


def test_a_torch_that_hangs_is_a_fact(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken_torch(tmp_path, "import time; time.sleep(60)", monkeypatch)
    facts = torch_facts(sys.executable, 2)
    assert facts["problem"] == "did not finish within 2 s"
    assert facts["version"]


def test_a_torch_that_prints_while_importing_does_no_harm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken_torch(tmp_path, "print('hello', end='')\nraise RuntimeError('no')", monkeypatch)
    assert torch_facts(sys.executable, 60)["problem"] == "RuntimeError: no"


def test_a_python_that_is_not_there_is_a_fact() -> None:
    assert torch_facts("/nonexistent/python", 60) == {
        "version": None,
        "problem": "cannot run /nonexistent/python: No such file or directory",
    }
