"""`torch.compile` with inductor on a device that is not there: Triton compiles the kernels, and none runs."""

from __future__ import annotations

import subprocess

import pytest

from tests.driverless.conftest import Ask

PROGRAM = """
import json, sys, torch
from torch import nn
model = nn.Sequential(nn.Linear(256, 1024), nn.GELU(), nn.LayerNorm(1024), nn.Linear(1024, 256)).cuda()
x = torch.randn(64, 256, device="cuda")
held = []
for run in (model, torch.compile(model)):
    for time in range(2):
        before = torch.cuda.memory_allocated()
        out = run(x)
        kept = torch.cuda.memory_allocated() - before
        out.square().mean().backward()
        del out
        model.zero_grad()
    held.append(kept)
print(json.dumps({"eager": held[0], "compiled": held[1]}))
"""
KEPT_LESS = 64 * 1024 * 4
"""What the compiled GELU and LayerNorm need not keep: one of the activations in between."""


def test_compiled_kernels_are_launched_and_fusion_keeps_less(ask_driverless: Ask, cuda_python: str) -> None:
    has_triton = subprocess.run([cuda_python, "-c", "import triton"], capture_output=True, check=False)
    if has_triton.returncode:
        pytest.skip("the Python for driverless tests has no triton")
    found = ask_driverless(PROGRAM, gpu="a100-40gb")
    assert found["compiled"] <= found["eager"] - KEPT_LESS
