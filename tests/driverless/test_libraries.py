"""What training asks of NVIDIA's libraries is answered: nothing is refused, shapes and sizes are right."""

from __future__ import annotations

from pathlib import Path

import pytest

from memtrace.driverless.rules import library_of
from tests.driverless.conftest import Ask, Run

HEAD = """
import json, torch, torch.nn.functional as F
from torch import nn
rand = lambda *shape, **options: torch.randn(*shape, device="cuda", **options)
"""

LAYERS = """
layers = nn.ConvTranspose2d(16, 8, 3), nn.Conv2d(8, 8, 3, groups=2)
model = nn.Sequential(nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.ReLU(), *layers)
with torch.autocast("cuda", dtype=torch.float16):
    out = model.cuda()(rand(4, 3, 32, 32))
out.sum().backward()
heads = [rand(2, 4, 128, 64, dtype=torch.float16, requires_grad=True) for _ in range(3)]
F.scaled_dot_product_attention(*heads, is_causal=True).sum().backward()
bag = nn.EmbeddingBag(10, 4).cuda()(torch.tensor([[1, 2], [3, 4]]).cuda())
bag.sum().backward()
loss = F.ctc_loss(rand(50, 4, 20).log_softmax(2), torch.ones(4, 10, dtype=torch.int), (50,) * 4, (10,) * 4)
by_cudnn = F.ctc_loss(rand(50, 4, 20).log_softmax(2), torch.ones(40, dtype=torch.int), (50,) * 4, (10,) * 4)
shapes = [list(one.shape) for one in (out, heads[0].grad, bag, loss, by_cudnn)]
print(json.dumps(shapes))
"""

RECURRENT = """
said = []
for kind in (nn.RNN, nn.GRU, nn.LSTM):
    for directions in (1, 2):
        model = kind(32, 64, num_layers=2, bidirectional=directions == 2, dropout=0.1).cuda()
        out, _ = model(rand(10, 4, 32))
        out.sum().backward()
        weights = {one.untyped_storage().data_ptr(): one.untyped_storage().nbytes() for one in model.parameters()}
        elements = sum(one.numel() for one in model.parameters())
        said.append([list(out.shape) == [10, 4, 64 * directions], list(weights.values()) == [4 * elements]])
model = nn.LSTM(32, 64, proj_size=16).cuda()
out, _ = model(rand(10, 4, 32))
out.sum().backward()
said.append([list(out.shape) == [10, 4, 16], model.weight_hr_l0.grad.shape == model.weight_hr_l0.shape])
print(json.dumps(said))
"""

ALGEBRA = """
one, batch = rand(64, 64), rand(4, 8, 8)
for name in "cholesky qr eigh svd inv det slogdet lu_factor pinv svdvals".split():
    for matrix in (one, batch):
        getattr(torch.linalg, name)(matrix)
for matrix in (one, batch):
    torch.linalg.solve(matrix, matrix), torch.linalg.lstsq(matrix, matrix)
sparse = torch.eye(8).to_sparse().cuda()
shapes = [
    (sparse @ rand(8, 4)).shape, (torch.eye(8).to_sparse_csr().cuda() @ rand(8, 4)).shape,
    torch.fft.rfft(rand(8, 128)).shape, torch.fft.fft2(rand(2, 16, 16)).shape,
    (rand(4, 4, dtype=torch.complex64) @ rand(4, 4, dtype=torch.complex64)).shape,
    torch.bmm(rand(4, 3, 5).double(), rand(4, 5, 2).double()).shape, rand(1000, 100).topk(5)[0].shape,
    rand(100000).sort()[0].shape, torch.special.erfcx(rand(4)).shape, torch.multinomial(rand(10).abs(), 3).shape,
]
print(json.dumps([list(shape) for shape in shapes] + [torch.dot(rand(4), rand(4)).item()]))
"""

STEPS = """
model = nn.Linear(4, 4).cuda()
optimizer = torch.optim.AdamW(model.parameters(), fused=True)
scaler = torch.amp.GradScaler("cuda")
for _ in range(2):
    with torch.autocast("cuda", dtype=torch.float16):
        loss = model(rand(2, 4)).sum()
    scaler.scale(loss).backward()
    scaler.unscale_(optimizer)
    norm = nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    scaler.step(optimizer)
    scaler.update()
    optimizer.zero_grad()
with torch.profiler.profile(profile_memory=True) as profile:
    (rand(100, 100) @ rand(100, 100)).sum().item()
loader = torch.utils.data.DataLoader(torch.arange(10), batch_size=5, num_workers=1, pin_memory=True)
print(json.dumps([norm.item(), len(profile.events()) > 0, [one.cuda(non_blocking=True).tolist() for one in loader]]))
"""

EXPECTED = {
    "layers": (LAYERS, [[4, 8, 30, 30], [2, 4, 128, 64], [2, 4], [], []]),
    "recurrent": (RECURRENT, [[True, True]] * 7),
    "algebra": (
        ALGEBRA,
        [[8, 4], [8, 4], [8, 65], [2, 16, 16], [4, 4], [4, 3, 2], [1000, 5], [100000], [4], [3], 0],
    ),
    "steps": (STEPS, [0, True, [[0, 1, 2, 3, 4], [5, 6, 7, 8, 9]]]),
}


@pytest.mark.parametrize("name", EXPECTED)
def test_nothing_that_training_asks_is_refused(ask_driverless: Ask, tmp_path: Path, name: str) -> None:
    program, expected = EXPECTED[name]
    log = tmp_path / "log.txt"
    assert ask_driverless(HEAD + program, log=log) == expected
    lines = log.read_text(encoding="utf-8").splitlines() if log.exists() else []
    assert [line for line in lines if " refused " in line] == []


def test_a_call_that_nobody_thought_of_is_named_counted_and_refused(run_driverless: Run, tmp_path: Path) -> None:
    program = """
import ctypes, re
file = re.search(r"/\\S*/libcublas\\.so\\.\\d+", open("/proc/self/maps").read()).group()
print([ctypes.CDLL(file).cublasSrotmg_v2(1, 2, 3, 4, 5, 6) for _ in range(3)])
"""
    log = tmp_path / "log.txt"
    done = run_driverless("-c", program, log=log)
    not_supported = library_of("cublasSrotmg_v2").refusal
    assert done.stdout.strip() == str([not_supported] * 3)
    assert done.stderr.count("has no answer to cublasSrotmg_v2") == 1
    assert [line.split()[1:] for line in log.read_text(encoding="utf-8").splitlines()] == [
        ["refused", "3", "cublasSrotmg_v2"]
    ]
