"""Several processes on several devices, with NCCL's part answered."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

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
