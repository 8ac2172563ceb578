"""Several ranks: each a process of its own with NCCL's part answered, or the first one alone, by both engines."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest

from memtrace.store.reading.read import read_trace
from tests.conftest import RunMemtrace
from tests.driverless.conftest import Run

HEAD = """
import json, sys
import torch
import torch.distributed as dist
from torch import nn
dist.init_process_group("nccl")
rank = dist.get_rank()
torch.cuda.set_device(rank)
"""
TAIL = """
optimizer = torch.optim.AdamW(model.parameters())
for _ in range(3):
    model(torch.randn(16, 256, device="cuda")).sum().backward()
    optimizer.step()
    optimizer.zero_grad()
size = sum(one.to_local().numel() if hasattr(one, "to_local") else one.numel() for one in model.parameters())
with open(f"{sys.argv[1]}/{rank}.json", "w") as file:
    json.dump({"rank": rank, "parameters": size, "peak": torch.cuda.max_memory_allocated()}, file)
dist.barrier(device_ids=[rank])
dist.destroy_process_group()
"""
MODEL = "nn.Sequential(nn.Linear(256, 512), nn.ReLU(), nn.Linear(512, 256)).cuda()"
DDP = HEAD + f"model = nn.parallel.DistributedDataParallel({MODEL}, device_ids=[rank])\n" + TAIL
FSDP = f"{HEAD}from torch.distributed.fsdp import fully_shard\nmodel = {MODEL}\nfully_shard(model)\n{TAIL}"
PARAMETERS = 256 * 512 + 512 + 512 * 256 + 256


@pytest.mark.parametrize(("program", "ranks_that_share"), [(DDP, 1), (FSDP, 2)], ids=["ddp", "fsdp2"])
def test_two_ranks_train(run_driverless: Run, tmp_path: Path, program: str, ranks_that_share: int) -> None:
    path = tmp_path / "program.py"
    path.write_text(program, encoding="utf-8")
    command = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", path, tmp_path)
    done = run_driverless(*command, gpu="a100-80gb", num_devices=2)
    assert done.returncode == 0, done.stderr[-3000:]
    said = [json.loads((tmp_path / f"{rank}.json").read_text(encoding="utf-8")) for rank in range(2)]
    assert sorted(one["rank"] for one in said) == [0, 1]
    assert {one["parameters"] for one in said} == {PARAMETERS // ranks_that_share}
    # Weights, gradients and two moments of float32, at least.
    assert all(one["peak"] >= 4 * 4 * PARAMETERS // ranks_that_share for one in said)


ALONE = """
import gc, sys
import torch
import torch.distributed as dist
import torch.distributed.pipelining as pipelining
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import CPUOffloadPolicy, fully_shard
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module

WIDTH, MICROBATCHES = 256, 8
dist.init_process_group("nccl")
rank, world = dist.get_rank(), dist.get_world_size()
device = torch.device("cuda", 0)

def layers():
    return nn.Sequential(nn.Linear(WIDTH, 4 * WIDTH), nn.GELU(), nn.Linear(4 * WIDTH, WIDTH))

def batch():
    return torch.randn(256, WIDTH, device=device)

def train(parameters, step):
    optimizer = torch.optim.AdamW(parameters, foreach=False)
    for _ in range(2):
        step()
        optimizer.step()
        optimizer.zero_grad()

def pipeline(name, *places, **shapes):
    number = world * len(places)
    stages = [pipelining.PipelineStage(layers().to(device), at, number, device, **shapes) for at in places]
    schedule = getattr(pipelining, name)(
        stages if len(places) > 1 else stages[0], MICROBATCHES, loss_fn=nn.functional.mse_loss
    )
    last = {"target": batch(), "losses": []} if world * len(places) - 1 in places else {}
    train([one for stage in stages for one in stage.submod.parameters()], lambda: schedule.step(batch(), **last))

def tensor_parallel():
    model = parallelize_module(
        layers().to(device), init_device_mesh("cuda", (world,)), {"0": ColwiseParallel(), "2": RowwiseParallel()}
    )
    train(model.parameters(), lambda: model(batch()).square().mean().backward())

def offloaded():
    model = nn.Sequential(layers(), layers())
    for one in (*model, model):
        fully_shard(one, offload_policy=CPUOffloadPolicy())
    train(model.parameters(), lambda: model(batch()).square().mean().backward())

one = torch.empty(256 // MICROBATCHES, WIDTH, device="meta")
# The workspaces of cuBLAS are taken once.
layers().to(device)(batch()).sum().backward()
# What cuDNN may take for them is noted in the trace.
for kind in (nn.Conv2d, nn.ConvTranspose2d):
    kind(3, 8, 5, stride=2).to(device)(torch.randn(2, 3, 32, 32, device=device)).sum().backward()
for name, run in {
    "one_by_one": lambda: pipeline("Schedule1F1B", 0),
    "at_once": lambda: pipeline("ScheduleGPipe", 0),
    "told": lambda: pipeline("ScheduleGPipe", 0, input_args=one, output_args=one.clone().requires_grad_()),
    "interleaved": lambda: pipeline("ScheduleInterleaved1F1B", 0, world),
    "there_and_back": lambda: pipeline("ScheduleZBVZeroBubble", 0, 2 * world - 1),
    "tensors": tensor_parallel,
    "offloaded": offloaded,
}.items():
    gc.collect()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    run()
    print("peak", name, torch.cuda.max_memory_allocated() - before, flush=True)
"""
_LEAST = 16 * 1024
"""Bytes of small pieces, such as messages about shapes and counters, that are not followed."""


def test_one_rank_peaks_alike_by_both_engines(run_memtrace: RunMemtrace, cuda_python: str, tmp_path: Path) -> None:
    program = tmp_path / "alone.py"
    program.write_text(ALONE, encoding="utf-8")
    said, taken = {}, {}
    for engine, python in {"driverless": cuda_python, "meta": sys.executable}.items():
        asked = ("predict", "--engine", engine, "--gpu", "a100-40gb", "--world-size", "4", "--steps", "1000")
        done = run_memtrace(*asked, "-o", tmp_path / f"{engine}.json", "--", python, program, cwd=tmp_path)
        said[engine] = {name: int(size) for name, size in re.findall(r"^peak (\w+) (\d+)$", done.stdout, re.MULTILINE)}
        noted = read_trace([tmp_path / f"{engine}.json"]).ranks[0].header["convolutions"]
        taken[engine] = [one["workspace_bytes"] for one in noted]
        assert len(said[engine]) == ALONE.count(": lambda") + 2, done.stderr[-3000:]
    # One is unfolded where its output is, which has 14 places a side, the other where its input is.
    assert taken["meta"] == taken["driverless"] == [2 * 14 * 14 * 3 * 25 * 4, 2 * 32 * 32 * 8 * 25 * 4]
    truth = said["driverless"]
    off = {
        name: (size, truth[name])
        for name, size in said["meta"].items()
        if abs(size - truth[name]) > max(_LEAST, truth[name] // 200)
    }
    assert not off
    assert truth["told"] <= truth["at_once"] < truth["interleaved"]
