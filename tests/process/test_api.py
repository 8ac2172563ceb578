"""Recording from inside a script, with `memtrace.start`, `step`, `stop` and `record`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from memtrace.analysis.report import analyze
from memtrace.store.reading.read import read_trace
from tests.conftest import RunMemtrace

LOOP = """
import torch
def train(steps, mark=lambda: None):
    torch.manual_seed(0)
    model = torch.nn.Linear(64, 64)
    for _ in range(steps):
        model(torch.ones(2, 64)).sum().backward()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter -= 0.1 * parameter.grad
                parameter.grad = None
        mark()
"""


def run_script(folder: Path, text: str) -> subprocess.CompletedProcess[str]:
    """Run a script of these lines in a folder."""
    (folder / "script.py").write_text(text)
    return subprocess.run([sys.executable, "script.py"], cwd=folder, capture_output=True, text=True, timeout=120)


def test_with_block_writes_the_trace_also_on_an_exception(tmp_path: Path) -> None:
    done = run_script(
        tmp_path, f"{LOOP}\nimport memtrace\nwith memtrace.record('t.json'):\n    train(2)\n    raise KeyError('x')\n"
    )
    assert done.returncode == 1
    assert "KeyError: 'x'" in done.stderr
    (rank,) = analyze(read_trace(tmp_path / "t.json")).ranks
    assert rank.complete
    assert rank.num_allocations > 0
    assert not (tmp_path / "t.json.parts").exists()


def test_explicit_steps_are_the_only_steps(tmp_path: Path) -> None:
    text = f"{LOOP}\nimport memtrace\nmemtrace.start('t.json.gz')\ntrain(4, memtrace.step)\nprint(memtrace.stop())\n"
    done = run_script(tmp_path, text)
    assert (done.returncode, done.stdout, done.stderr) == (0, "t.json.gz\n", "")
    (rank,) = analyze(read_trace(tmp_path / "t.json.gz")).ranks
    assert [step.step for step in rank.steps if step.end_ns is not None] == [1, 2, 3, 4]


def test_a_second_start_and_an_existing_output_are_refused(tmp_path: Path) -> None:
    text = (
        "import memtrace\nmemtrace.start('t.json')\ntry:\n    memtrace.start('u.json')\nfinally:\n    memtrace.stop()\n"
    )
    done = run_script(tmp_path, text)
    assert "a recording runs already" in done.stderr
    assert (tmp_path / "t.json").exists()
    assert "exists already" in run_script(tmp_path, "import memtrace\nmemtrace.start('t.json')\n").stderr


def test_calls_stay_harmless_under_memtrace_record(tmp_path: Path, run_memtrace: RunMemtrace) -> None:
    text = f"{LOOP}\nimport memtrace\nmemtrace.start('inner.json')\ntrain(3, memtrace.step)\nprint(memtrace.stop())\n"
    (tmp_path / "script.py").write_text(text)
    done = run_memtrace("record", "-o", "outer.json", "--", sys.executable, "script.py", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "None\n"
    assert not (tmp_path / "inner.json").exists()
    (rank,) = analyze(read_trace(tmp_path / "outer.json")).ranks
    assert [step.step for step in rank.steps if step.end_ns is not None] == [1, 2, 3]
