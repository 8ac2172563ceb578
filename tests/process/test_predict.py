"""`memtrace predict` of whole programs: the unchanged sample, on a GPU that is not there, against the real host run."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from memtrace.analysis.report import analyze
from memtrace.schema.names import Category
from memtrace.store.reading.read import read_trace
from memtrace.store.trace import RankTrace

SAMPLES = Path(__file__).parent.parent.parent / "samples"
GPT = [str(SAMPLES / "train_gpt.py"), "--layers", "2", "--sequence", "32", "--micro-batch", "4", "--hidden", "64"]


def memtrace(*words: str | Path, cwd: Path, status: int = 0) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-m", "memtrace", *map(str, words)], cwd=cwd, capture_output=True, text=True, check=False
    )
    assert done.returncode == status, done.stdout + done.stderr
    return done


def predicted(cwd: Path, *command: str, options: tuple[str, ...] = ()) -> RankTrace:
    memtrace("predict", "-o", "predicted.json", *options, "--", sys.executable, *command, cwd=cwd)
    (rank,) = read_trace([cwd / "predicted.json"]).ranks
    return rank


def recorded(cwd: Path, *command: str) -> RankTrace:
    memtrace("record", "-o", "recorded.json", "--device", "cpu", "--", sys.executable, *command, cwd=cwd)
    (rank,) = read_trace([cwd / "recorded.json"]).ranks
    return rank


def owned(rank: RankTrace, step: int) -> dict[str, dict[str, int]]:
    """Return bytes by name and category of what is owned at the end of a step."""
    owners = rank.table("owners")
    found: dict[str, dict[str, int]] = {}
    for row in np.flatnonzero(owners["step"] == step).tolist():
        category = rank.text(owners["category"][row]) or ""
        if category != Category.INPUT.value:
            found.setdefault(category, {})[rank.text(owners["name"][row]) or ""] = int(owners["tensor_bytes"][row])
    return found


def saved(rank: RankTrace, step: int) -> dict[str, int]:
    """Return the bytes that each class of node keeps for backward in a step; parameters are not in it."""
    table, owners = rank.table("saved"), rank.table("owners")
    kept = set(owners["address"][owners["category"] == rank.string_id(Category.PARAMETER.value)].tolist())
    found: dict[str, int] = {}
    for row in np.flatnonzero(table["step"] == step).tolist():
        if int(table["address"][row]) not in kept:
            op = rank.text(table["op"][row]) or ""
            found[op] = found.get(op, 0) + int(table["size_bytes"][row])
    return found


def test_everything_that_lasts_is_that_of_a_real_run(tmp_path: Path) -> None:
    program = [*GPT, "--attention", "explicit", "--steps", "2"]
    guess = predicted(tmp_path, *program, "--device", "cuda")
    real = recorded(tmp_path, *program, "--device", "cpu")
    expected = owned(real, 2)
    assert {Category.PARAMETER.value, Category.OPTIMIZER_STATE.value, Category.GRADIENT.value} <= expected.keys()
    assert owned(guess, 2) == expected
    # Without dropout and with explicit attention no kernel differs, so that autograd keeps the same bytes.
    assert saved(guess, 2) == saved(real, 2)


def written(folder: Path, source: str) -> str:
    path = folder / "program.py"
    path.write_text(source, encoding="utf-8")
    return str(path)


DISTRIBUTED = """
import torch, torch.distributed as dist
from torch import nn
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel
dist.init_process_group("nccl")
model = nn.Sequential(*[nn.Linear(64, 64) for _ in range(3)])
WRAP
optimizer = torch.optim.AdamW(model.parameters())
while True:
    model(torch.randn(8, 64, device="cuda")).square().mean().backward()
    optimizer.step()
    optimizer.zero_grad()
"""
PARAMETER_BYTES = 3 * (64 * 64 + 64) * 4
RANKS = 4


@pytest.mark.parametrize(
    ("wrap", "share"),
    [("model = DistributedDataParallel(model.cuda())", 1), ("[fully_shard(one) for one in [*model, model]]", RANKS)],
)
def test_one_of_several_ranks_holds_its_share(tmp_path: Path, wrap: str, share: int) -> None:
    program = written(tmp_path, DISTRIBUTED.replace("WRAP", wrap))
    rank = predicted(tmp_path, program, options=("--world-size", str(RANKS)))
    held = {category: sum(names.values()) for category, names in owned(rank, 2).items()}
    moments = 2 * PARAMETER_BYTES // share
    counters = 6 * 4  # AdamW counts its steps on the host, a float for each parameter
    assert held[Category.PARAMETER.value] == PARAMETER_BYTES // share
    assert held[Category.OPTIMIZER_STATE.value] == moments + counters


WRITING = """
import os, torch
model = torch.nn.Linear(512, 512).cuda()
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
os.makedirs("out", exist_ok=True)
while True:
    with open("out/log.txt", "a") as log:
        log.write("step")
    assert open("out/log.txt").read().startswith("step")
    torch.save(model.state_dict(), "out/model.pt")
    model(torch.ones(65536, 512, device="cuda")).sum().backward()
    optimizer.step()
"""


def test_what_does_not_fit_is_said_and_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))
    program = written(tmp_path, WRITING)
    command = ("predict", "--gpu", "516MiB", "--", sys.executable, program)
    done = memtrace(*command, cwd=tmp_path, status=3)
    assert done.stdout.startswith("Does not fit on 516MiB: in step ")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["predicted.json", "program.py", "tmp"]
    # The trace ends where a recording would: with the request that fails, in the line that makes it.
    (report,) = [one for one in analyze(read_trace([tmp_path / "predicted.json"])).ranks if one.device != "cpu"]
    assert report.oom is not None
    assert f"in step {report.oom.step} a request of" in done.stdout
    assert report.oom.where is not None
    assert str(report.oom.where["file"]).endswith("program.py")


def test_a_program_without_a_gpu_is_not_predicted(tmp_path: Path) -> None:
    program = written(tmp_path, "import torch\ntorch.ones(3).sum()\n")
    done = memtrace("predict", "--", sys.executable, program, cwd=tmp_path, status=1)
    assert "put nothing on a GPU" in done.stderr
    assert not (tmp_path / "predicted.json").exists()
