"""What a rank holds: the tables of the playbook and the ZeRO paper, and invariants over random layouts."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from memtrace.forecast.memory.formulas import in_flight_microbatches, selective_cost, selective_saving, zero_bytes
from memtrace.forecast.memory.layout import Layout, Run
from memtrace.forecast.memory.optimizers import OPTIMIZERS
from memtrace.forecast.memory.sharding import RankModel, in_flight, rank_model
from memtrace.forecast.model.config import read_config
from memtrace.forecast.model.from_parameter_count import spec_of_size
from memtrace.forecast.model.parameters import num_parameter_tensors, num_parameters
from memtrace.forecast.model.precision import PRECISIONS
from memtrace.forecast.model.presets import preset

GB = 10**9


def held(model: RankModel) -> int:
    return int(model.weights + model.gradients + model.accumulated_gradients + model.states)


@pytest.mark.parametrize(
    ("billions", "fp32", "mixed"), [(1, 16, 20), (7, 112, 140), (70, 1120, 1400), (405, 6480, 8100)]
)
def test_table_of_the_playbook(billions: int, fp32: int, mixed: int) -> None:
    spec = spec_of_size(billions * GB)
    sizes = [
        held(rank_model(spec, Run(precision=PRECISIONS[name]), Layout(), is_last=False))
        for name in ("fp32", "bf16-mixed-fp32-grad")
    ]
    assert sizes == [fp32 * GB, mixed * GB]


@pytest.mark.parametrize(("stage", "published"), [(0, 120.0), (1, 31.4), (2, 16.6), (3, 1.9)])
def test_table_of_zero(stage: int, published: float) -> None:
    model = rank_model(spec_of_size(7_500_000_000), Run(), Layout(dp=64, zero=stage), is_last=False)
    assert round(held(model) / GB, 1) == published
    assert round(zero_bytes(7.5 * GB, 64, stage) / GB, 1) == published


def test_selective_recomputation_of_gpt3_saves_70_percent_for_2_7_percent() -> None:
    gpt3 = preset("gpt3-175b")
    assert round(100 * selective_saving(2048, gpt3.hidden, gpt3.num_heads)) == 70
    # The paper cuts 2.78 to 2.7.
    assert int(1000 * selective_cost(2048, gpt3.hidden)) / 10 == 2.7


def test_states_of_adamw_on_the_cpu_include_a_step_count_a_tensor() -> None:
    spec = preset("gpt2")
    run = Run(precision=PRECISIONS["fp32"], backend="cpu")
    states = rank_model(spec, run, Layout(), is_last=False).states
    assert states == 8 * num_parameters(spec) + 4 * num_parameter_tensors(spec)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_no_optimizer_holds_more_than_adamw(optimizer: str) -> None:
    sizes = [
        rank_model(preset("llama-3.2-1b"), Run(optimizer=OPTIMIZERS[name]), Layout(), is_last=False).states
        for name in (optimizer, "adamw", "sgd")
    ]
    assert sizes[2] <= sizes[0] <= sizes[1]


axes = {name: st.sampled_from([1, 2, 4, 8]) for name in ("dp", "tp", "pp", "cp")}


@given(**axes, zero=st.integers(0, 3), name=st.sampled_from(["llama-3-8b", "gpt2-xl", "mixtral-8x7b", "gemma-2b"]))
def test_ranks_together_hold_the_model(dp: int, tp: int, pp: int, cp: int, zero: int, name: str) -> None:
    spec, layout = preset(name), Layout(dp=dp, tp=tp, pp=pp, cp=cp, zero=zero)
    run = Run()
    first, last = (rank_model(spec, run, layout, is_last=is_last) for is_last in (False, True))
    copies = tp * pp * (dp * cp if zero >= 3 else 1)
    # What every rank holds whole, and stages rounded up, make it more than the model; never less.
    assert copies * max(first.weights, last.weights) >= 2 * num_parameters(spec)
    if pp == tp == 1:
        # FSDP pads each tensor to whole rows a rank.
        assert copies * first.weights < 2.02 * num_parameters(spec) + 2 * copies
        assert first == last


@given(**axes, name=st.sampled_from(["llama-3-8b", "qwen3-30b-a3b"]))
def test_each_stage_of_zero_holds_no_more_than_the_one_before(dp: int, tp: int, pp: int, cp: int, name: str) -> None:
    layout = Layout(dp=dp, tp=tp, pp=pp, cp=cp)
    sizes = [
        held(rank_model(preset(name), Run(), replace(layout, zero=stage), is_last=False)) for stage in (0, 1, 2, 3)
    ]
    assert sizes == sorted(sizes, reverse=True)
    if dp * cp > 1:
        assert len(set(sizes)) == 4


def test_expert_parallelism_divides_experts_alone() -> None:
    spec = preset("mixtral-8x7b")
    whole, divided = (rank_model(spec, Run(), Layout(dp=8, ep=ep), is_last=False).elements for ep in (1, 8))
    assert divided.dense == whole.dense
    assert divided.experts * 8 == whole.experts


def test_first_stage_holds_as_many_microbatches_as_there_are_stages() -> None:
    layout, run = Layout(pp=8), Run(accumulation=64)
    assert in_flight(run, layout, is_last=False) == 8
    assert in_flight(run, layout, is_last=True) == 1
    assert in_flight_microbatches(8, 0, 3) == 3


def test_many_layouts_at_once_are_those_of_each() -> None:
    spec, run = preset("mixtral-8x7b"), Run()
    grids = np.meshgrid([1, 2, 8], [1, 2, 8], [1, 4], [1, 2], [0, 1, 2, 3], indexing="ij")
    dp, tp, pp, cp, zero = (grid.ravel() for grid in grids)
    for is_last in (False, True):
        together = rank_model(spec, run, Layout(dp=dp, tp=tp, pp=pp, cp=cp, zero=zero), is_last=is_last)
        for at in range(len(dp)):
            layout = Layout(dp=int(dp[at]), tp=int(tp[at]), pp=int(pp[at]), cp=int(cp[at]), zero=int(zero[at]))
            one = rank_model(spec, run, layout, is_last=is_last)
            for name in ("weights", "gradients", "states", "gathered", "reduced", "buckets"):
                assert int(getattr(together, name)[at]) == int(getattr(one, name)), name


def test_buckets_hold_all_gradients_once_more_unless_these_are_views() -> None:
    run, spec = Run(precision=PRECISIONS["fp32"]), preset("gpt2")
    copied = rank_model(spec, run, Layout(dp=4, bucket_view=False), is_last=False)
    assert copied.buckets == copied.gradients == 4 * num_parameters(spec)
    assert rank_model(spec, run, Layout(dp=4), is_last=False).buckets == 0
    assert rank_model(spec, run, Layout(bucket_view=False), is_last=False).buckets == 0


FULLY_SHARD = """
import runpy, sys
from argparse import Namespace
import torch, torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.testing._internal.distributed.fake_pg import FakeStore

def held(tensors):
    local = [getattr(one, "_local_tensor", one) for one in tensors]
    return sum(one.numel() * one.element_size() for one in local)

sample = runpy.run_path(sys.argv[1])
for case in sys.argv[2:]:
    world, hidden, layers, heads, vocabulary, sequence = map(int, case.split(","))
    dist.init_process_group("fake", rank=0, world_size=world, store=FakeStore())
    mesh = init_device_mesh("cpu", (world,))
    options = {"hidden": hidden, "layers": layers, "heads": heads, "sequence": sequence, "dropout": 0.0}
    model = sample["GPT"](vocabulary, Namespace(**options, attention="sdpa", checkpointing=False))
    for block in model.blocks:
        fully_shard(block, mesh=mesh)
    fully_shard(model, mesh=mesh)
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.randint(0, vocabulary, (2, sequence))).sum().backward()
    gradients = held([one.grad for one in model.parameters()])
    optimizer.step()
    states = held([value for state in optimizer.state.values() for value in state.values()])
    print(held(list(model.parameters())), gradients, states)
    dist.destroy_process_group()
"""


def test_fsdp_shards_are_those_of_torch(repo_root: Path) -> None:
    pytest.importorskip("torch")
    cases = [(2, 32, 2, 4, 101, 18), (4, 36, 3, 4, 97, 18), (8, 24, 1, 2, 61, 30)]
    arguments = [str(repo_root / "samples/train_gpt.py"), *(",".join(map(str, case)) for case in cases)]
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", FULLY_SHARD, *arguments],
        capture_output=True,
        text=True,
        timeout=280,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    run = Run(precision=PRECISIONS["fp32"], backend="cpu")
    found = [[int(one) for one in line.split()] for line in done.stdout.splitlines()]
    for (world, hidden, layers, heads, vocabulary, positions), sizes in zip(cases, found, strict=True):
        config = {"n_embd": hidden, "n_layer": layers, "n_head": heads, "n_positions": positions}
        spec = read_config({"model_type": "gpt2", "vocab_size": vocabulary, **config})
        model = rank_model(spec, run, Layout(dp=world, zero=3), is_last=False)
        # The first rank holds the largest part of each tensor.
        assert [model.weights, model.gradients, model.states] == sizes
