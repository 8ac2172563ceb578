"""`memtrace predict` on torch's own CUDA code: data that nobody computed, files, ranks, and running out of memory."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from memtrace.store.reading.read import read_trace

DATA = """
import os, torch, torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel
model = nn.Linear(64, 64).cuda()
mask = torch.tensor([True, False, True]).cuda()
assert mask.nonzero().tolist() == [[0], [2]], "what was sent over is known"
assert torch.tensor([3, 5]).cuda()[1].item() == 5
assert nn.functional.one_hot(torch.tensor([0, 3]).cuda()).shape == (2, 4)
ids = torch.tensor([[5, 3, 0, 0], [1, 2, 3, 0]]).cuda()
nn.Embedding(10, 4).cuda()(ids).sum().backward()
mask = ids != 0
lengths = mask.sum(1)
assert lengths.cpu().tolist() == [2, 3] and ids[mask].shape == (5,), "known, though a kernel has read it"
assert (torch.arange(4, device="cuda")[None] < lengths[:, None]).tolist() == mask.tolist()
padded = nn.utils.rnn.pack_padded_sequence(torch.ones(2, 4, 8).cuda(), lengths.cpu(), True, enforce_sorted=False)
assert padded.batch_sizes.tolist() == [2, 2, 1]
ids.add_(1)
assert ids.tolist() == [[1] * 4] * 2, "it was written into: ones stand for what nobody knows"
assert ((2 * ids).dtype, (ids * 0.5).dtype) == (torch.int64, torch.float32)
unfinished, finished = torch.ones(2, dtype=torch.long, device="cuda"), torch.zeros(2, device="cuda").bool()
for length in range(1000):
    finished = finished | torch.full((2,), length >= 5, device="cuda") | (torch.rand(2, device="cuda") > 0.5)
    unfinished = unfinished & ~finished
    if unfinished.max() == 0:
        break
assert length == 5, "it ends at its longest, whatever else might have ended it"
x = torch.randn(8, 64, device="cuda")
assert x.cpu().eq(1).all()
assert torch.istft(torch.stft(x, 16, return_complex=True), 16).shape[0] == 8, "a check in C++ passes"
torch.cuda.memory._record_memory_history(enabled=None)
assert (x > 0).nonzero().shape == (8 * 64, 2), "what was computed is not: the most is assumed"
assert x[x > 0].shape == (8 * 64,)
assert torch.unique(x).numel() == 8 * 64
assert float(model(x).sum()) == 1.0 and torch.isfinite(torch.tensor(model(x).mean().item()))
assert not torch.isnan(x).any()
assert (model(x) < 5).all(), "a check that guards an error passes"
torch.distributions.Normal(x, x.abs(), validate_args=True)
if not torch.isfinite(model(x)).all():
    raise ValueError("not finite")
big = nn.Linear(1024, 1024)
torch.save({"weight": model.weight}, "model.pt")
assert torch.load("model.pt")["weight"].is_cuda
assert torch.cuda.device_count() == 4
dist.init_process_group("nccl")
gathered = torch.empty(1, 4 * 64, device="cuda")
dist.all_gather_into_tensor(gathered, x[:1].contiguous())
model = DistributedDataParallel(model)
scaler, optimizer = torch.amp.GradScaler("cuda"), torch.optim.AdamW(model.parameters())
while True:
    with torch.autocast("cuda", dtype=torch.float16):
        loss = model(x).square().mean()
    scaler.scale(loss).backward()
    scaler.step(optimizer)
    scaler.update()
    optimizer.zero_grad()
"""
TOO_LARGE = """
import torch
model = torch.nn.Linear(512, 512).cuda()
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
kept = [torch.empty(1 << 26, dtype=torch.uint8, device="cuda")]
for step in range(3):
    loss = model(torch.ones(1 << 17, 512, device="cuda")).sum()
    loss.backward()
    optimizer.step()
"""


def predicted(folder: Path, python: str, source: str, *options: str) -> tuple[int, str, str]:
    (folder / "program.py").write_text(source, encoding="utf-8")
    words = ("predict", "-o", "predicted.json", "--engine", "driverless", "--json", *options)
    done = subprocess.run(
        [sys.executable, "-m", "memtrace", *words, "--", python, "program.py"],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


def test_data_is_known_or_assumed_and_files_and_ranks_are_there(cuda_python: str, tmp_path: Path) -> None:
    status, stdout, stderr = predicted(tmp_path, cuda_python, DATA, "--world-size", "4")
    assert status == 0, stderr
    document = json.loads(stdout)
    assert (document["engine"], document["world_size"]) == ("driverless", 4)
    said = [(one["slug"], one["message"]) for one in document["warnings"]]
    lines = DATA.splitlines()
    bounded = {message.partition(": ")[0] for slug, message in said if slug == "predicted-bound"}
    expected = [at for at, line in enumerate(lines, 1) if "x > 0" in line or "unique" in line]
    assert bounded == {f"program.py:{at}" for at in expected}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["predicted.json", "program.py"]
    (rank,) = read_trace([tmp_path / "predicted.json"]).ranks
    assert rank.source == "predicted"
    assert rank.header["prediction"]["engine"] == "driverless"


def test_torch_itself_runs_out_of_memory(cuda_python: str, tmp_path: Path) -> None:
    status, stdout, stderr = predicted(tmp_path, cuda_python, TOO_LARGE, "--gpu", "716MiB")
    assert status == 3, stderr
    assert "OutOfMemoryError" in stderr, "the program saw torch's own error"
    document = json.loads(stdout)
    rows = (1 << 17) * 512 * 4
    assert document["failed"]["request_bytes"] == rows
    assert document["peak_allocated_bytes"] > document["capacity_bytes"] >= document["failed"]["allocated_bytes"]
