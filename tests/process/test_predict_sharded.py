"""One rank of many, predicted: it holds its share, however the program shards; shapes of the whole cost nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.process.predicted_programs import predict

pytest.importorskip("torch.distributed.tensor")

RANKS, WIDTH, LAYERS = 8, 256, 4
WHOLE = 4 * LAYERS * WIDTH * WIDTH

START = f"""
import torch
import torch.distributed as dist
from torch import nn

RANKS, WIDTH, LAYERS = {RANKS}, {WIDTH}, {LAYERS}
WHOLE = {WHOLE}

def build():
    return nn.Sequential(*[nn.Linear(WIDTH, WIDTH, bias=False) for _ in range(LAYERS)])
"""

META = """
from torch.distributed.fsdp import fully_shard
dist.init_process_group("nccl")
with torch.device("meta"):
    model = build()
for layer in model:
    fully_shard(layer)
fully_shard(model)
model.to_empty(device="cuda")
for parameter in model.parameters():
    nn.init.normal_(parameter)
"""

WRAPPED = """
from torch.distributed.fsdp import FullyShardedDataParallel
from torch.distributed.fsdp.wrap import ModuleWrapPolicy
dist.init_process_group("nccl")
model = FullyShardedDataParallel(build(), auto_wrap_policy=ModuleWrapPolicy({nn.Linear}), device_id=0)
"""

COLUMNS = """
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module
mesh = init_device_mesh("cuda", (RANKS,))
model = build().to("cuda")
parallelize_module(model, mesh, {"0": ColwiseParallel(), "1": RowwiseParallel(),
                                 "2": ColwiseParallel(), "3": RowwiseParallel()})
"""

TRAIN = """
assert torch.cuda.memory_allocated() == WHOLE // RANKS, torch.cuda.memory_allocated()
optimizer = torch.optim.AdamW(model.parameters())
def forward_and_backward():
    model(torch.ones(4, WIDTH, device="cuda")).sum().backward()
forward_and_backward()
torch.cuda.reset_peak_memory_stats()
before = torch.cuda.memory_allocated()
optimizer.step()
# Two states, and temporaries of no more than the share: never those of whole tensors.
assert torch.cuda.memory_allocated() - before == 2 * WHOLE // RANKS
assert torch.cuda.max_memory_allocated() - before < 5 * WHOLE // RANKS
print("done")
"""


@pytest.mark.parametrize("shard", [META, WRAPPED, COLUMNS], ids=["fsdp2-meta", "fsdp1", "tensor-parallel"])
def test_a_rank_holds_its_share(tmp_path: Path, shard: str) -> None:
    predict(tmp_path, START + shard + TRAIN, "--world-size", str(RANKS))
