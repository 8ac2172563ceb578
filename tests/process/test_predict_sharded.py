"""One rank of many, predicted: it holds its share, however the program shards; shapes of the whole cost nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.process.predicted_programs import predict, predicted_rank

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


LAST, WORLD, ON_A_MACHINE, ROWS = 3, 4, 2, 10
AS_A_RANK = f"""
import os
import torch
import torch.distributed as dist
import torch.distributed.pipelining as pipelining
from torch import nn
from torch.distributed.fsdp import fully_shard

world, on_a_machine, rows = {WORLD}, {ON_A_MACHINE}, {ROWS}
local = int(os.environ["LOCAL_RANK"])
dist.init_process_group("nccl")
rank = dist.get_rank()
told = int(os.environ["RANK"]), local, int(os.environ["GROUP_RANK"])
assert told == (rank, rank % on_a_machine, rank // on_a_machine), told
assert (dist.get_world_size(), torch.cuda.device_count()) == (world, on_a_machine)
with torch.cuda.device(local):
    assert torch.cuda.current_device() == local
assert torch.cuda.current_device() == 0
torch.cuda.set_device(local)
device = torch.ones(2, device="cuda").device
assert device == torch.device("cuda", local) == torch.ones(2).cuda().device, device
assert torch.cuda.current_device() == torch.ones(1, device="cuda").get_device() == local

# Only rank 0 knows: its own run says so, and those of the ranks between.
sent = [{{"width": 24}}] if rank == 0 else [None]
dist.broadcast_object_list(sent, src=0)
# In a group of one rank nobody else is asked, however it is named.
own = ["mine"]
dist.broadcast_object_list(own, group_src=0, group=[dist.new_group([one]) for one in range(world)][rank])
assert own == ["mine"]
numbers = torch.tensor([7, 9] if rank == 0 else [0, 0], device="cuda")
dist.broadcast(numbers, src=0)
assert sent == [{{"width": 24}}] and numbers.tolist() == [7, 9], (sent, numbers.tolist())

whole = nn.Linear(sent[0]["width"], rows).cuda()
fully_shard(whole)
mine = torch.arange(rows).chunk(world)[rank]
assert whole.weight.to_local().shape == (len(mine), 24), whole.weight.to_local().shape

stage = pipelining.PipelineStage(nn.Linear(8 * 2**rank, 16 * 2**rank).to(device), rank, world, device)
schedule = pipelining.Schedule1F1B(stage, 4, loss_fn=nn.functional.mse_loss)
last = {{"target": torch.ones(16, 16 * 2**rank, device=device)}} if rank == world - 1 else {{}}
optimizer = torch.optim.AdamW([*whole.parameters(), *stage.submod.parameters()], foreach=False)
for _ in range(2):
    whole(torch.ones(4, 24, device=device)).sum().backward()
    schedule.step(*([torch.ones(16, 8, device=device)] if rank == 0 else []), **last)
    optimizer.step()
    optimizer.zero_grad()
print("done")
"""


def test_the_last_rank_has_its_own_gpu_shard_and_stage(tmp_path: Path) -> None:
    """The stages widen what they are given: the shape that the last one receives is told by those before it."""
    words = ("--world-size", str(WORLD), "--gpus-per-node", str(ON_A_MACHINE), "--rank", str(LAST))
    done = predict(tmp_path, AS_A_RANK, *words)
    assert done.stderr.count("for what it tells rank 3") == LAST
    rank = predicted_rank(tmp_path)
    assert (rank.header["rank"], rank.header["world_size"]) == (LAST, WORLD)
    assert [one["name"] for one in rank.header["devices"]] == ["cuda:1"]
