"""The peak of operators, forward and backward: as torch's own CUDA code has it and as the meta engine predicts it."""

from __future__ import annotations

import re
import sys
from pathlib import Path

from tests.conftest import RunMemtrace
from tests.driverless.conftest import Run

PROGRAM = """
import gc, torch, torch.nn as nn, torch.nn.functional as F
device = "cuda"

def real(*shape, kind=torch.float32, grad=True):
    return torch.randn(*shape, device=device, dtype=kind).requires_grad_(grad)

def places(below, *shape):
    return torch.randint(0, below, shape).to(device)

def packed(one):
    return nn.utils.rnn.pack_padded_sequence(one, torch.arange(64, 56, -1), batch_first=True)

def nested(kind):
    rows = [torch.ones(length, 256, device=device, dtype=kind) for length in (100, 200, 300)]
    return torch.nested.nested_tensor(rows, layout=torch.jagged, requires_grad=True)

def lowered(model, one):
    with torch.autocast(device, dtype=torch.bfloat16):
        return model(one)

def operators(kind):
    x = lambda *shape, grad=True: real(*shape, kind=kind, grad=grad)
    layer = lambda name, *args, **options: getattr(nn, name)(*args, **options, device=device, dtype=kind)
    yield "layer_norm", lambda: layer("LayerNorm", 512)(x(16, 256, 512))
    yield "group_norm", lambda: layer("GroupNorm", 8, 64)(x(8, 64, 32, 32))
    yield "batch_norm", lambda: layer("BatchNorm2d", 64)(x(8, 64, 32, 32))
    yield "instance_norm", lambda: layer("InstanceNorm2d", 64, affine=True)(x(8, 64, 32, 32))
    yield "rms_norm", lambda: layer("RMSNorm", 512)(x(16, 256, 512))
    yield "softmax", lambda: x(16, 256, 500).softmax(-1)
    yield "log_softmax", lambda: x(16, 256, 500).log_softmax(-1)
    yield "cross_entropy", lambda: F.cross_entropy(x(2048, 2048), places(2048, 2048))
    yield "smoothed", lambda: F.cross_entropy(x(2048, 2048), places(2048, 2048), label_smoothing=0.1)
    yield "probabilities", lambda: F.cross_entropy(x(2048, 2048), x(2048, 2048, grad=False).softmax(1))
    yield "by_pixel", lambda: F.cross_entropy(x(4, 21, 96, 96), places(21, 4, 96, 96))
    yield "mse", lambda: F.mse_loss(x(1024, 1024), x(1024, 1024, grad=False))
    yield "huber", lambda: F.huber_loss(x(1024, 1024), x(1024, 1024, grad=False))
    yield "embedding", lambda: layer("Embedding", 8000, 256)(places(8000, 8, 1024))
    yield "linear", lambda: layer("Linear", 512, 2048)(x(8, 256, 512))
    yield "biased_head", lambda: layer("Linear", 256, 4096)(x(4, 256, 256)).square()
    yield "bmm", lambda: x(8, 256, 256) @ x(8, 256, 256)
    yield "einsum", lambda: torch.einsum("bhqd,bhkd->bhqk", x(4, 4, 256, 64), x(4, 4, 256, 64))
    yield "amax", lambda: x(2048, 512).amax(1)
    yield "columns", lambda: x(8192, 512).sum(0)
    yield "deviation", lambda: x(2048, 512).std(0)
    yield "norm", lambda: x(2048, 512).norm()
    yield "topk", lambda: x(2048, 512).topk(8, 1)[0]
    yield "gather", lambda: x(2048, 512).gather(1, places(512, 2048, 128))
    yield "index_select", lambda: x(2048, 512).index_select(0, places(2048, 4096))
    yield "index", lambda: x(2048, 512)[places(2048, 4096)]
    yield "masked", lambda: x(2048, 512).masked_fill(torch.ones(2048, 512, dtype=torch.bool, device=device), 0)
    yield "convolution", lambda: layer("Conv2d", 16, 32, 3, padding=1)(x(8, 16, 48, 48))
    yield "convolution_1d", lambda: layer("Conv1d", 64, 64, 5)(x(8, 64, 1024))
    yield "transposed", lambda: layer("ConvTranspose2d", 16, 32, 4, 2, 1)(x(8, 16, 24, 24))
    yield "max_pool", lambda: F.max_pool2d(x(8, 64, 48, 48), 2)
    yield "avg_pool", lambda: F.avg_pool2d(x(8, 64, 48, 48), 2)
    yield "upsample", lambda: F.interpolate(x(8, 32, 24, 24), scale_factor=2, mode="bilinear")
    yield "unfold", lambda: F.unfold(x(8, 16, 24, 24), 3)
    yield "pad", lambda: F.pad(x(8, 16, 48, 48), (1, 1, 1, 1), mode="reflect")
    yield "roll", lambda: x(8, 48, 48, 32).roll((3, 3), (1, 2))
    yield "bias", lambda: x(8192, 512) + x(512)
    yield "heads", lambda: layer("MultiheadAttention", 256, 4)(*[x(256, 4, 256)] * 3, need_weights=False)[0]
    yield "heads_first", lambda: F.scaled_dot_product_attention(*(x(4, 4, 256, 64) for _ in range(3))).square()
    yield "weighted", lambda: F.binary_cross_entropy_with_logits(
        x(1024, 512), x(1024, 512, grad=False), pos_weight=x(512, grad=False)
    )
    yield "each", lambda: F.binary_cross_entropy_with_logits(x(1024, 512), x(1024, 512, grad=False), reduction="none")
    yield "product", lambda: x(2048, 512).prod(1)
    yield "whole_product", lambda: x(2048, 512).prod()
    yield "running_product", lambda: x(2048, 512).cumprod(1)
    yield "bag", lambda: layer("EmbeddingBag", 8000, 256)(places(8000, 512, 16))
    yield "cell", lambda: layer("LSTMCell", 128, 256)(x(512, 128))[0]
    yield "gru_cell", lambda: layer("GRUCell", 128, 256)(x(512, 128))
    yield "linear_upsample", lambda: F.interpolate(x(8, 32, 512), scale_factor=2, mode="linear")
    yield "cubic_upsample", lambda: F.interpolate(x(8, 32, 24, 24), scale_factor=2, mode="bicubic")
    yield "pool_3d", lambda: F.avg_pool3d(x(4, 16, 16, 16, 16), 2)
    yield "rows_normalized", lambda: layer("BatchNorm1d", 512)(x(1024, 512))
    yield "distances", lambda: torch.cdist(real(256, 64), real(256, 64), p=1)
    yield "nested", lambda: layer("LayerNorm", 512)(layer("Linear", 256, 512)(nested(kind))).values()
    yield "bilinear", lambda: layer("Bilinear", 48, 64, 40)(x(128, 48), x(128, 64))
    yield "transformed", lambda: torch.fft.irfft(torch.fft.rfft(real(256, 1024)))
    yield "both_moments", lambda: sum(one.sum() for one in torch.var_mean(x(2048, 512), 1))
    yield "rolled", lambda: x(8, 48, 48, 32).roll((3, 3, 1), (0, 1, 2))
    yield "windows", lambda: x(64, 4096).unfold(1, 64, 32)
    yield "smooth", lambda: F.interpolate(real(8, 32, 32, 32), size=16, mode="bilinear", antialias=True)
    yield "gru_lowered", lambda: lowered(nn.GRU(128, 256, device=device), x(64, 8, 128))[0]
    yield "cell_lowered", lambda: lowered(nn.GRUCell(128, 256, device=device), real(512, 128))
    yield "lstm", lambda: layer("LSTM", 128, 256, 2, batch_first=True)(x(8, 64, 128))[0]
    yield "gru", lambda: layer("GRU", 128, 256, bidirectional=True, bias=False)(x(64, 8, 128))[0]
    yield "recurrent", lambda: layer("RNN", 128, 256, 2, dropout=0.1)(x(64, 8, 128))[0]
    yield "projected", lambda: layer("LSTM", 128, 256, 2, proj_size=64)(x(64, 8, 128))[0]
    yield "packed", lambda: layer("LSTM", 128, 256, batch_first=True)(packed(x(8, 64, 128)))[0].data
    yield "lowered", lambda: lowered(nn.LSTM(128, 256, batch_first=True, device=device), real(8, 64, 128))[0]
    yield "encoder", lambda: layer("TransformerEncoderLayer", 256, 4, 512, batch_first=True)(x(4, 256, 256))

# What is there by now stays: looking through it for each operator takes most of the time.
gc.freeze()
for kind in (torch.float32, torch.bfloat16):
    # The workspaces of cuBLAS are taken once.
    layer = nn.Linear(64, 64, device=device, dtype=kind)
    layer(real(64, 64, kind=kind)).sum().backward()
    for name, run in operators(kind):
        gc.collect()
        torch.cuda.reset_peak_memory_stats()
        # What is requested: what is allocated counts the ends of blocks that are not worth cutting off.
        before = torch.cuda.memory_stats()["requested_bytes.all.current"]
        run().sum().backward()
        print("peak", name, kind, torch.cuda.memory_stats()["requested_bytes.all.peak"] - before, flush=True)
"""
_LEAST = 16 * 1024
"""Bytes of small pieces, such as counters, that are not followed."""


def peaks(said: str) -> dict[tuple[str, str], int]:
    """Return the bytes by operator and type."""
    return {(name, kind): int(size) for name, kind, size in re.findall(r"^peak (\w+) (\S+) (\d+)$", said, re.MULTILINE)}


def test_every_operator_peaks_where_torch_does(run_driverless: Run, run_memtrace: RunMemtrace, tmp_path: Path) -> None:
    program = tmp_path / "operators.py"
    program.write_text(PROGRAM)
    ran = run_driverless(program, gpu="a100-40gb")
    made_up = (
        "predict",
        "--engine",
        "meta",
        "--gpu",
        "a100-40gb",
        "--steps",
        "1000",
        "-o",
        tmp_path / "predicted.json",
    )
    predicted = run_memtrace(*made_up, "--", sys.executable, program, cwd=tmp_path)
    truth, said = peaks(ran.stdout), peaks(predicted.stdout)
    assert len(truth) == 2 * PROGRAM.count("    yield "), ran.stderr[-2000:]
    assert said.keys() == truth.keys(), predicted.stderr[-2000:]
    off = {
        name: (size, said[name]) for name, size in truth.items() if abs(said[name] - size) > max(_LEAST, size // 200)
    }
    assert not off
