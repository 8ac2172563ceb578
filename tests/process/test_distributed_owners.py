"""What DDP and FSDP2 hold for communication has an owner. One rank is enough: it gathers and reduces with itself."""

from __future__ import annotations

import pytest

from memtrace.analysis.communication.communication import communication_of_rank
from memtrace.analysis.device.device_history import build_history
from memtrace.analysis.device.steps import step_results, step_spans
from memtrace.analysis.faults.find import find_faults
from tests.process.conftest import Workplace
from tests.warm.start import warm_python

pytest.importorskip("torch")

START = """
import sys
import torch
import torch.distributed as dist

torch.manual_seed(0)
dist.init_process_group("gloo", init_method=f"file://{sys.argv[1]}", rank=0, world_size=1)

class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.blocks = torch.nn.ModuleList(torch.nn.Linear(64, 64) for _ in range(2))
        self.head = torch.nn.Linear(64, 3)
        self.unused = torch.nn.Linear(50, 7, bias=False)

    def forward(self, x):
        for block in self.blocks:
            x = block(x).relu()
        return self.head(x)

def train(model):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(3):
        model(torch.randn(8, 64)).pow(2).mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    dist.destroy_process_group()
"""
BLOCK, HEAD, UNUSED = 4 * (64 * 64 + 64), 4 * (64 * 3 + 3), 4 * 50 * 7
GRADIENTS = 2 * BLOCK + HEAD
PARAMETERS = GRADIENTS + UNUSED


def recorded(work: Workplace, source: str) -> tuple[list[dict[str, object]], dict[str, int], list[str]]:
    """Run a program and return its rows of owners, the levels at the end of its last step, and its scopes' classes."""
    work.write("train.py", START + source, trains=False)
    ran = work.record(warm_python(), "train.py", work.folder / "store")
    assert ran.returncode == 0, ran.stderr.decode()
    rank = work.rank()
    assert "hook-failed" not in [warning.slug for warning in rank.warnings]
    owners = rank.table("owners").rows()
    rows = [{**row, "category": rank.text(row["category"]), "name": rank.text(row["name"])} for row in owners]
    history = build_history(rank, "cpu", owns_marks=True)
    end = [step.end for step in step_results(history, step_spans(history)) if step.end is not None][-1]
    return rows, dict(end.by_category), [rank.text(row["class_name"]) for row in rank.table("scopes").rows()]


def of_step(rows: list[dict[str, object]], category: str, start: str = "") -> dict[str, int]:
    """Return bytes by name of the rows of one category in step 2."""
    return {
        str(row["name"]): int(str(row["tensor_bytes"]))
        for row in rows
        if row["step"] == 2 and row["category"] == category and str(row["name"]).startswith(start)
    }


SHARD = """
from torch.distributed.fsdp import fully_shard
model = Net()
for block in model.blocks:
    fully_shard(block)
fully_shard(model)
"""


def test_fsdp2_gathers_and_reduces(work: Workplace) -> None:
    rows, end, _ = recorded(work, SHARD + "train(model)")
    gathered = of_step(rows, "communication", "gathered ")
    assert gathered["gathered blocks.0.weight"] == 4 * 64 * 64
    assert sum(gathered.values()) == PARAMETERS
    reduced = of_step(rows, "communication", "reduce-scatter of ")
    assert reduced == {
        "reduce-scatter of blocks.0": BLOCK,
        "reduce-scatter of blocks.1": BLOCK,
        "reduce-scatter of the root": HEAD,
    }
    assert sum(of_step(rows, "gradient", "unsharded ").values()) == GRADIENTS
    assert sum(of_step(rows, "parameter").values()) == PARAMETERS
    assert (end["parameter"], end["gradient"], end.get("communication", 0)) == (PARAMETERS, GRADIENTS, 0)
    exchanged = communication_of_rank(work.rank())
    assert exchanged is not None
    # A rank alone gathers nothing, and yet scatters; three steps.
    assert {(one.name, one.gather_bytes, one.scatter_bytes, one.num_scatters) for one in exchanged.shard_groups} == {
        ("the root", None, HEAD, 3),
        *((f"blocks.{number}", None, BLOCK, 3) for number in range(2)),
    }


def test_a_parameter_that_stays_gathered_is_held_beside_its_shard(work: Workplace) -> None:
    rows, end, _ = recorded(work, SHARD + "model.set_reshard_after_backward(False)\ntrain(model)")
    assert sum(of_step(rows, "parameter").values()) == PARAMETERS
    assert set(of_step(rows, "parameter")) == {
        *(f"blocks.{number}.{name}" for number in range(2) for name in ("weight", "bias")),
        *("head.weight", "head.bias", "unused.weight"),
    }
    assert (end["parameter"], end["communication"]) == (PARAMETERS, PARAMETERS)


@pytest.mark.parametrize("views", [False, True])
def test_ddp_holds_buckets(work: Workplace, views: bool) -> None:
    source = f"""
from torch.nn.parallel import DistributedDataParallel
train(DistributedDataParallel(Net(), find_unused_parameters=True, gradient_as_bucket_view={views}))
"""
    rows, end, scopes = recorded(work, source)
    assert "Reducer" in scopes
    assert (end["parameter"], end["gradient"]) == (PARAMETERS, GRADIENTS)
    assert sum(of_step(rows, "gradient").values()) == GRADIENTS
    # The reducer also notes which of the seven parameters were used: an int32 each, once for itself and once to reduce.
    held = (UNUSED if views else PARAMETERS) + 2 * 4 * 7
    assert end["communication"] == held
    assert bool(of_step(rows, "communication", "bucket")) == views
    history = build_history(work.rank(), "cpu", owns_marks=True)
    found = {one.slug: one for one in find_faults(history)}
    # Where the rebuilding of buckets is the peak, they are not beside gradients there.
    assert not (views and "buckets-beside-gradients" in found)
    if "buckets-beside-gradients" in found:
        promised, peak = found["buckets-beside-gradients"].new_peak_bytes, int(history.levels.requested.max())
        assert promised is not None
        # Backward alone, before all gradients are there, is the peak then, or the rebuilding of buckets.
        assert peak - GRADIENTS <= promised < peak
