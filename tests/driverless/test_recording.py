"""memtrace on CUDA: its own GPU tests, unchanged, and that it never starts CUDA before the program does."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.driverless.conftest import ROOT, Run, ended_too_early

PYTEST = ("-m", "pytest", "-c", "/dev/null", "--rootdir", ROOT, "-p", "no:cacheprovider", "-q", "-m", "gpu", "-rs")

FORKING = """
import os, torch
def child():
    pid = os.fork()
    if pid == 0:
        torch.zeros(3).cuda()
        os._exit(5)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
model = torch.nn.Linear(8, 8)
assert child() == 5
assert not torch.cuda.is_initialized()
model.cuda()(torch.randn(2, 8, device="cuda")).sum().backward()
"""

DYING = """
import atexit, torch
kept = []
atexit.register(lambda: (kept.clear(), torch.empty(3 * 2**20, device="cuda")))
model = torch.nn.Linear(512, 512, device="cuda")
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
while True:
    loss = model(torch.ones(8, 512, device="cuda")).square().sum()
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    kept.append(torch.empty(40 * 2**20, dtype=torch.uint8, device="cuda"))
"""
"""Runs out of memory; and between the exception and the end of the process frees some and allocates more."""

THREADED = """
import threading, torch
def train():
    model = torch.nn.Linear(512, 512, device="cuda")
    optimizer = torch.optim.AdamW(model.parameters())
    for _ in range(3):
        model(torch.ones(8, 512, device="cuda")).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()
thread = threading.Thread(target=train)
thread.start()
thread.join()
"""


@pytest.mark.parametrize("file", ["test_gpu_allocator.py", "test_gpu_record.py"])
@pytest.mark.timeout(1300)
def test_what_is_tested_on_a_gpu_holds_without_one(run_driverless: Run, file: str) -> None:
    done = run_driverless(*PYTEST, f"tests/gpu/{file}", gpu="a100-80gb", timeout_s=600)
    if ended_too_early(done):
        done = run_driverless(*PYTEST, f"tests/gpu/{file}", gpu="a100-80gb", timeout_s=600)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert "skipped" not in done.stdout


def test_recording_does_not_start_cuda(run_driverless: Run, cuda_python: str, tmp_path: Path) -> None:
    """A driver that is started before a fork is lost to the child: the child of this program uses CUDA all the same."""
    trace = tmp_path / "trace.json"
    done = run_driverless("-m", "memtrace", "record", "-o", trace, "--", cuda_python, "-c", FORKING)
    assert done.returncode == 0, done.stderr
    report = run_driverless("-m", "memtrace", "report", "--json", trace)
    assert [rank["device"] for rank in json.loads(report.stdout)["ranks"]] == ["cuda:0"]


def test_a_history_ends_with_the_exception_that_ended_the_program(
    run_driverless: Run, cuda_python: str, tmp_path: Path
) -> None:
    """What is freed and allocated afterwards, by another thread say, must not pass for a history that starts late."""
    trace = tmp_path / "trace.json"
    command = ("-m", "memtrace", "record", "-o", trace, "--", cuda_python, "-c", DYING)
    done = run_driverless(*command, memory_bytes=1 << 30, context_bytes=256 << 20)
    assert "OutOfMemoryError" in done.stderr
    asked = run_driverless("-m", "memtrace", "whatif", "--json", trace)
    (rank,) = json.loads(asked.stdout)["ranks"]
    before, fidelity = rank["rows"][0], rank["fidelity"]
    assert fidelity["replayable"]
    assert fidelity["allocations_matched"] == fidelity["allocations"] > 18
    assert not before["fits"]
    assert before["oom"]["request_bytes"] == 40 << 20


def test_a_thread_that_trains_is_followed(run_driverless: Run, cuda_python: str, tmp_path: Path) -> None:
    """As under Ray and in web servers; and torch says nothing of a recorder that another thread switches off."""
    trace = tmp_path / "trace.json"
    done = run_driverless("-m", "memtrace", "record", "-o", trace, "--", cuda_python, "-c", THREADED)
    assert (done.returncode, [line for line in done.stderr.splitlines() if line.startswith("[W")]) == (0, [])
    asked = run_driverless("-m", "memtrace", "report", "--json", trace)
    (rank,) = json.loads(asked.stdout)["ranks"]
    assert [step["step"] for step in rank["steps"]] == [1, 2, 3]
    parameters = 4 * (512 * 512 + 512)
    assert rank["steps"][-1]["end"]["by_category"]["optimizer_state"] == 2 * parameters
