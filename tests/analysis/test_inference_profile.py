"""Inference from a profile of torch: it has no stacks and no owners, but modules and nodes as ranges in time."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from memtrace.analysis.attribution.inferred_marks import with_inferred_marks
from memtrace.analysis.report import analyze
from memtrace.analysis.results.report import RankReport
from memtrace.schema.names import Phase
from memtrace.store.reading.read import read_trace

WIDTH, LAYERS, STEPS = 64, 4, 4
PARAMETER_BYTES = 4 * LAYERS * (2 * 4 * WIDTH * WIDTH + 5 * WIDTH)
NUM_PARAMETERS = 4 * LAYERS
PROGRAM = f"""
import sys
import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile, schedule

plan = schedule(wait=0, warmup=0, active={STEPS}, repeat=1) if sys.argv[2] == "steps" else None
with profile(activities=[ProfilerActivity.CPU], profile_memory=True, with_stack=True, schedule=plan) as profiler:
    layers = [nn.Sequential(nn.Linear({WIDTH}, {4 * WIDTH}), nn.GELU(), nn.Linear({4 * WIDTH}, {WIDTH}))
              for _ in range({LAYERS})]
    model = nn.Sequential(*layers)
    optimizer = torch.optim.AdamW(model.parameters())
    for step in range({STEPS}):
        loss = model(torch.randn(32, {WIDTH})).pow(2).mean()
        loss.backward()
        optimizer.step()
        if step + 1 < {STEPS}:
            optimizer.zero_grad()
            profiler.step()
profiler.export_chrome_trace(sys.argv[1])
"""


def _profiled(folder: Path, steps: str) -> Path:
    path = folder / "profile.json"
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "KINETO_LOG_LEVEL": "99"}
    command = [sys.executable, "-c", PROGRAM, str(path), steps]
    subprocess.run(command, check=True, env=environment, capture_output=True, timeout=240)
    return path


@pytest.mark.parametrize("steps", ["steps", "no steps"])
def test_profile_from_the_start_has_exact_sizes(tmp_path: Path, steps: str) -> None:
    path = _profiled(tmp_path, steps)
    report: RankReport = analyze(read_trace(path)).ranks[0]
    found = report.end.by_category
    assert found["parameter"] == found["gradient"] == PARAMETER_BYTES
    # Adam counts its steps in a float for each parameter.
    assert found["optimizer_state"] == 2 * PARAMETER_BYTES + 4 * NUM_PARAMETERS
    assert not {"owner", "hook"} & set(report.end.by_decision)
    rank = with_inferred_marks(read_trace(path).ranks[0])
    phases = [rank.text(int(one)) for one in rank.table("phases")["phase"]]
    assert phases == [Phase.FORWARD.value, Phase.BACKWARD.value, Phase.OPTIMIZER.value] * STEPS
    assert len({int(one) for one in rank.table("phases")["step"]}) == STEPS
