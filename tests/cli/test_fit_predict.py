"""`memtrace fit --predict`: the search on predicted runs, with given traces and with a real program."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from memtrace.cli import group
from memtrace.forecast.fitting.predicted_trials import measure_driverless, measure_predicted
from memtrace.forecast.gpus import Gpu, gpu_named
from memtrace.forecast.prediction.judge import placed_trace
from memtrace.schema.cuda_context import USUAL_CONTEXT
from memtrace.schema.options import PredictOptions
from memtrace.schema.predicted import DRIVERLESS, META
from memtrace.store.trace import Trace
from tests.conftest import RunMemtrace
from tests.forecast.predicted_run import MIB, PARAMETER, RULE, predicted_trace
from tests.warm.start import warm_python

ROW = 10 * MIB
"""What a row of the simulated program takes: segments of such requests are as large as they."""
COMMAND = ("--", "python", "train.py", "--batch-size={mbs}")


def capacity_for(rows: int) -> int:
    """Return the memory of the GPU on which so many rows just fit."""
    return PARAMETER + rows * ROW + RULE + USUAL_CONTEXT.predicted_bytes


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[tuple[str, PredictOptions]]:
    """The commands that were run and the GPUs that they were told of; the working folder is empty."""
    found: list[tuple[str, PredictOptions]] = []

    def simulated(command: list[str], path: Path, gpu: PredictOptions, **options: Any) -> Trace:
        found.append((command[-1], gpu))
        return predicted_trace(int(command[-1].partition("=")[2]) * ROW)

    monkeypatch.setattr("memtrace.launch.prediction.predict", simulated)
    monkeypatch.chdir(tmp_path)
    return found


def invoke(*args: str | int) -> Result:
    return CliRunner().invoke(group, ["fit", "--predict", "--engine", "meta", *map(str, args)])


def test_a_program_that_makes_too_few_steps_is_refused(ran: list[tuple[str, PredictOptions]]) -> None:
    result = invoke("--capacity", f"{capacity_for(13)}B", "--steps", 3, "--max", 200, "--json", *COMMAND)
    assert result.exit_code == 1
    assert "micro-batch 1: it ended after 2 of 3 steps" in result.stderr
    assert [(word, gpu.gpu_bytes) for word, gpu in ran] == [("--batch-size=1", capacity_for(13))]


def test_needs_are_those_of_the_verdict() -> None:
    gpu = gpu_named(f"{capacity_for(4)}B")
    fits, fails = (measure_predicted(predicted_trace(rows * ROW), gpu, 2) for rows in (4, 5))
    assert fits.needed_bytes == gpu.memory_bytes == capacity_for(4)
    assert fits.peak_bytes == PARAMETER + 4 * ROW + RULE
    assert fails.needed_bytes == capacity_for(5)
    assert not fits.out_of_memory
    assert fits.device_bytes == gpu.memory_bytes


def test_torch_itself_says_what_a_size_needs_and_runs_again_where_it_ran_out() -> None:
    gpu, made = gpu_named(f"{capacity_for(4)}B"), []

    def left_by_torch(rows: int, gpu: Gpu) -> Trace:
        placed, verdict = placed_trace(predicted_trace(rows * ROW), gpu)
        return replace(placed, header={**placed.header, "exit_status": 0 if verdict.fits else 1})

    def again() -> Trace:
        made.append(5)
        return left_by_torch(5, gpu_named("500GiB"))

    fits = measure_driverless(left_by_torch(4, gpu), gpu, 2, again)
    assert not made
    fails = measure_driverless(left_by_torch(5, gpu), gpu, 2, again)
    assert made == [5]
    assert fits == measure_predicted(predicted_trace(4 * ROW), gpu, 2)
    assert fails.needed_bytes == capacity_for(5) > gpu.memory_bytes
    assert not fails.out_of_memory


def test_the_engine_is_chosen_as_by_predict_and_told_to_each_run(
    ran: list[tuple[str, PredictOptions]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def devices(_command: Any, _gpu: Any, **_options: Any) -> dict[str, str]:
        return {}

    monkeypatch.setattr("memtrace.cli.predicting.engine.devices", devices)
    words = ["fit", "--predict", "--capacity", f"{capacity_for(4)}B", "--max", "1", "--steps", "3", *COMMAND]
    result = CliRunner().invoke(group, words)
    assert "engine driverless" in result.stderr
    assert {gpu.engine for _, gpu in ran} == {DRIVERLESS}


PROGRAM = """
import sys, torch
size = int(sys.argv[1])
model = torch.nn.Linear(1024, 1024, bias=False, device="cuda")
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
for step in range(100_000):
    model(torch.ones(size * 4096, 1024, device="cuda")).square().sum().backward()
    optimizer.step()
    optimizer.zero_grad()
"""


def test_answer_and_the_next_size_are_what_predict_says_of_them(tmp_path: Path, run_memtrace: RunMemtrace) -> None:
    pytest.importorskip("torch")
    (tmp_path / "train.py").write_text(PROGRAM)
    # A row of 4096 takes 16 MiB a tensor; workspaces, weights and gradients take well below 200 MiB.
    gpu, least, most = f"{USUAL_CONTEXT.predicted_bytes + 376 * MIB}B", 2, 8
    options = {"cwd": tmp_path, "env": {"OMP_NUM_THREADS": "1"}}
    done = run_memtrace(
        "fit", "--predict", "--gpu", gpu, "--min", least, "--max", most, "--json",
        "--", warm_python(), "train.py", "{mbs}", **options,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    answer = document["micro_batch"]
    assert least <= answer < most
    assert {run["source"] for run in document["runs"]} == {"predicted"}
    assert document["engine"] == META
    by_size = {run["micro_batch"]: run for run in document["runs"]}
    assert not by_size[answer + 1]["fits"]
    for size, status in ((answer, 0), (answer + 1, 3)):
        said = run_memtrace(
            "predict", "--force", "--gpu", gpu, "--json", "--", warm_python(), "train.py", size, **options
        )
        assert said.returncode == status, said.stderr
        assert json.loads(said.stdout)["steady_state_peak"] is None or status == 0
        if not status:
            assert json.loads(said.stdout)["steady_state_peak"]["allocated_bytes"] == by_size[size]["peak_bytes"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["memtrace-fit-train.json", "predicted.json", "train.py"]


def test_a_gpu_must_be_named(ran: list[tuple[str, PredictOptions]]) -> None:
    result = invoke(*COMMAND)
    assert result.exit_code == 2
    assert "needs to know the GPU" in result.stderr
    assert not ran
