"""Real CUDA recordings: what the report says is what torch itself and the model say, to the byte."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import gpu

pytestmark = pytest.mark.gpu


@pytest.fixture(autouse=True)
def _needs_a_gpu() -> None:
    """Ask only when a test runs: collecting tests must not start a driver, nor need torch."""
    if importlib.util.find_spec("torch") is None:
        pytest.skip("no torch")
    import torch

    if not torch.cuda.is_available():
        pytest.skip("no GPU")


def run(*args: str | Path, **environ: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "memtrace", *map(str, args)]
    return subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        cwd=gpu.ROOT,
        env={**os.environ, **environ},
    )


@pytest.mark.parametrize("program", list(gpu.programs()), ids=lambda program: program.label)
def test_a_recording_is_what_torch_says(program: gpu.Program, tmp_path: Path) -> None:
    trace = tmp_path / "trace.json"
    recorded = run("record", "-o", trace, "--", sys.executable, *program.command, **program.environ)
    assert recorded.returncode == program.status, recorded.stderr
    reported = run("report", "--json", trace)
    assert reported.returncode == 0, reported.stderr
    report = json.loads(reported.stdout)
    assert {rank["source"] for rank in report["ranks"]} == {"recorded"}
    assert not gpu.judged(program, recorded.stdout, report).startswith("**wrong**")
    if program.says_totals:
        said = gpu.lines_said(recorded.stdout)
        assert len(said) == 3
        assert gpu.differences(said, report) == []
