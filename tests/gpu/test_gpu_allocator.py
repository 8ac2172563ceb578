"""The model against the real allocator: random programs on a GPU under several settings, every address compared."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from memtrace.allocator.replay import replay_device
from memtrace.store.reading.read import read_trace

pytestmark = pytest.mark.gpu

PROGRAM = """
import random, sys, torch
path, seed, late = sys.argv[1], int(sys.argv[2]), sys.argv[3] == "late"
fraction, graph = float(sys.argv[4]), sys.argv[5]
torch.cuda.init()
choose, side, live = random.Random(seed), torch.cuda.Stream(), []
sizes = [1, 700, 70_000, 2**20, 2**20 + 1, 3 * 2**20, 9 * 2**20, 12 * 2**20, 19 * 2**20, 47 * 2**20]
if fraction < 1:
    torch.cuda.set_per_process_memory_fraction(fraction)
def record():
    torch.cuda.memory._record_memory_history(max_entries=1_000_000, stacks="python")
if not late:
    record()
for at in range(1500):
    if late and at == 700:
        record()
    if choose.random() < (0.7 if at % 200 < 100 else 0.35):
        size = choose.choice(sizes) + 512 * choose.randrange(900) * (choose.random() < 0.5)
        with torch.cuda.stream(side if choose.random() < 0.2 else torch.cuda.current_stream()):
            try:
                live.append(torch.empty(size, dtype=torch.uint8, device="cuda"))
            except torch.cuda.OutOfMemoryError:
                live = live[::2]
    elif live:
        tensor = live.pop(choose.randrange(len(live)))
        if choose.random() < 0.1:
            with torch.cuda.stream(side):
                tensor.add_(1)
            tensor.record_stream(side)
        del tensor
    if choose.random() < 0.01:
        torch.cuda.empty_cache()
if graph == "graph":
    x = torch.ones(3 * 2**20, device="cuda")
    captured = torch.cuda.CUDAGraph()
    with torch.cuda.graph(captured):
        y = (x * 2 + 1).sum()
    captured.replay()
torch.cuda.synchronize()
torch.cuda.memory._dump_snapshot(path)
"""


@pytest.fixture(scope="module", autouse=True)
def _needs_a_gpu() -> None:
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")


def recorded(tmp_path: Path, conf: str, *arguments: str) -> Path:
    path = tmp_path / "snapshot.pickle"
    environment = {**os.environ, "PYTORCH_CUDA_ALLOC_CONF": conf, "PYTORCH_ALLOC_CONF": conf}
    command = [sys.executable, "-c", PROGRAM, str(path), *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    return path


@pytest.mark.parametrize(
    ("conf", "start"),
    [
        # Few, since each starts a process that loads torch: `make gpu` has a time limit.
        ("", "late"),
        ("expandable_segments:True", "early"),
        ("expandable_segments:True,roundup_power2_divisions:4", "late"),
        ("max_split_size_mb:32", "late"),
        ("roundup_power2_divisions:[1:4,>:8]", "early"),
    ],
)
def test_every_address_of_a_random_program_is_reproduced(tmp_path: Path, conf: str, start: str) -> None:
    check(recorded(tmp_path, conf, "1", start, "1", "plain"))


@pytest.mark.parametrize("conf", ["", "garbage_collection_threshold:0.6"])
def test_retries_at_a_memory_limit_are_reproduced(tmp_path: Path, conf: str) -> None:
    # About a gigabyte of whatever the GPU has, so that some requests fail.
    import torch

    fraction = 2**30 / torch.cuda.get_device_properties(0).total_memory
    check(recorded(tmp_path, conf, "2", "early", str(fraction), "plain"))


def test_a_captured_graph_is_reproduced(tmp_path: Path) -> None:
    check(recorded(tmp_path, "", "3", "early", "1", "graph"))


def check(path: Path) -> None:
    fidelity = replay_device(read_trace(path).ranks[0], "cuda:0").fidelity
    assert fidelity.replayable, fidelity.reason
    assert fidelity.is_exact, str(fidelity.first_divergence)
    assert fidelity.allocations_matched == fidelity.allocations - fidelity.num_inferred_blocks
