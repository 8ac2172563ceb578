"""Reading needs no torch, and help is quick: what each command imports, seen in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from memtrace.cli import COMMANDS

WITHOUT_TORCH = """
import sys

class NoTorch:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "torch":
            raise ModuleNotFoundError("torch is blocked in this test", name=name)

sys.meta_path.insert(0, NoTorch())
"""

RUN = """
import atexit, json, sys
from memtrace.cli import group

path = sys.argv.pop(1)

@atexit.register
def write_modules():
    with open(path, "w") as file:
        json.dump(sorted({name.partition(".")[0] for name in sys.modules}), file)

group.main(sys.argv[1:], prog_name="memtrace")
"""


def run_and_list_modules(tmp_path: Path, *args: str, before: str = "") -> tuple[str, set[str]]:
    """Run a memtrace command; return its standard output and the top-level modules that it imported."""
    modules = tmp_path / "modules.json"
    command = [sys.executable, "-c", before + RUN, str(modules), *args]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
    return result.stdout, set(json.loads(modules.read_text()))


@pytest.mark.parametrize("args", [("--help",), ("--version",), *((name, "--help") for name in COMMANDS)])
def test_help_imports_nothing_heavy(tmp_path: Path, args: tuple[str, ...]) -> None:
    output, modules = run_and_list_modules(tmp_path, *args)
    assert "memtrace" in output
    assert modules.isdisjoint({"numpy", "pandas", "torch", "rich"})


def test_help_imports_no_command(tmp_path: Path) -> None:
    command = [sys.executable, "-X", "importtime", "-m", "memtrace", "--help"]
    imported = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stderr
    assert "memtrace.cli" in imported
    assert [name for name in COMMANDS if f"memtrace.cli.{name}" in imported] == []


def test_torch_can_be_blocked() -> None:
    result = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH + "import torch"], capture_output=True, text=True, timeout=60
    )
    assert "torch is blocked in this test" in result.stderr


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory, run_memtrace, repo_root: Path) -> Path:
    """A trace of two steps of the sample GPT."""
    trace = tmp_path_factory.mktemp("recorded") / "trace.json"
    script = [sys.executable, repo_root / "samples/train_gpt.py", "--steps", "2", "--layers", "1", "--hidden", "32"]
    result = run_memtrace("record", "-o", trace, "--", *script)
    assert result.returncode == 0, result.stderr
    return trace


@pytest.mark.parametrize("options", [("report",), ("report", "--json"), ("inspect",), ("inspect", "--json")])
def test_reading_a_trace_needs_no_torch(tmp_path: Path, recorded: Path, options: tuple[str, ...]) -> None:
    command, *rest = options
    output, modules = run_and_list_modules(tmp_path, command, str(recorded), *rest, before=WITHOUT_TORCH)
    assert output
    assert "torch" not in modules


def test_html_needs_no_torch(tmp_path: Path, recorded: Path) -> None:
    page = tmp_path / "report.html"
    _, modules = run_and_list_modules(tmp_path, "report", str(recorded), "--html", str(page), before=WITHOUT_TORCH)
    assert page.stat().st_size > 0
    assert "torch" not in modules


def test_reading_a_snapshot_needs_no_torch(tmp_path: Path, shared_data: Path) -> None:
    snapshot = shared_data / "snapshots" / "attention-forward-backward-from-process-start.pickle"
    _, modules = run_and_list_modules(tmp_path, "report", str(snapshot), before=WITHOUT_TORCH)
    assert "torch" not in modules


def test_reading_a_kineto_trace_needs_no_torch(tmp_path: Path, shared_data: Path) -> None:
    trace = shared_data / "kineto" / "bert-inference-h100.json.gz"
    _, modules = run_and_list_modules(tmp_path, "report", str(trace), before=WITHOUT_TORCH)
    assert "torch" not in modules


def test_doctor_imports_no_torch_itself(tmp_path: Path) -> None:
    output, modules = run_and_list_modules(tmp_path, "doctor", before=WITHOUT_TORCH)
    assert "imported: true" in output, "torch is imported by another process, which is not blocked"
    assert "torch" not in modules
