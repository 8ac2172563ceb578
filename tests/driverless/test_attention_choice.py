"""Attention as predictions have it and as torch's own CUDA code does: which kernel, and what its backward takes."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from memtrace.hooks.fake.kernels.attention_choice import Attended, choose_backend  # noqa: E402
from memtrace.hooks.fake.kernels.attention_memory import efficient_backward_sizes, flash_backward_sizes  # noqa: E402
from tests.driverless.between_marks import MARKED  # noqa: E402
from tests.driverless.conftest import Ask  # noqa: E402

NUM_CALLS = 600
WIDTHS = (8, 16, 20, 32, 63, 64, 80, 96, 100, 128, 192, 200, 256, 512)

PROGRAM = """
import json, torch
chosen = []
for call in json.loads('CALLS'):
    kind = getattr(torch, call["kind"])
    three = [torch.empty(call[name], dtype=kind, device="cuda", requires_grad=call["grad"]) for name in "qkv"]
    shape = call["q"][2], call["k"][2]
    masks = {"flags": torch.bool, "added": kind}
    mask = torch.ones(shape, dtype=masks[call["mask"]], device="cuda") if call["mask"] else None
    options = {"scale": None, "enable_gqa": call["shared"]}
    chosen.append(int(torch._fused_sdp_choice(*three, mask, call["dropout"], call["causal"], **options)))
print(json.dumps([torch.cuda.get_device_capability(), chosen]))
"""


def calls(seed: int) -> list[dict[str, Any]]:
    """Return calls drawn at random, of heads that are equal or shared, or are neither."""
    drawn = random.Random(seed)
    found = []
    for _ in range(NUM_CALLS):
        batch, heads, width = drawn.choice([1, 2]), drawn.choice([1, 4, 8, 12]), drawn.choice(WIDTHS)
        rows = drawn.choice([1, 16, 100, 256])
        rows_of_key = drawn.choice([rows, rows, 1, 64, 300])
        heads_of_key = drawn.choice([heads, heads, max(1, heads // 4), 1])
        mask = drawn.choice([None, None, "flags", "added"])
        found.append(
            {
                "kind": drawn.choice(["float32", "bfloat16", "float16"]),
                "q": (batch, heads, rows, width),
                "k": (batch, heads_of_key, rows_of_key, width),
                "v": (
                    *(batch, drawn.choice([heads_of_key, heads_of_key, heads])),
                    *(rows_of_key, drawn.choice([width, width, 64, 128])),
                ),
                "mask": mask,
                "causal": mask is None and drawn.random() < 0.4,
                "dropout": drawn.choice([0.0, 0.0, 0.1, 0.25]),
                "shared": drawn.random() < 0.7,
                "grad": drawn.random() < 0.7,
            }
        )
    return found


def chosen(call: dict[str, Any], capability: tuple[int, int]) -> int:
    """Return the number of the kernel that a prediction takes."""
    query, key, value = (
        torch.empty(call[name], dtype=getattr(torch, call["kind"]), device="meta", requires_grad=call["grad"])
        for name in "qkv"
    )
    attended = Attended(
        query=query, key=key, value=value, has_mask=call["mask"] is not None, dropout=call["dropout"],
        is_causal=call["causal"], enable_gqa=call["shared"],
    )  # fmt: skip
    return int(choose_backend(attended, capability))


@pytest.mark.parametrize("gpu", ["t4-16gb", "rtx3090-24gb", "h100-80gb", "b200-192gb"])
def test_predictions_take_the_kernel_that_torch_chooses(ask_driverless: Ask, gpu: str) -> None:
    drawn = calls(seed=len(gpu))
    capability, taken = ask_driverless(PROGRAM.replace("CALLS", json.dumps(drawn)), gpu=gpu)
    wrong = {
        str(call): (chosen(call, tuple(capability)), kernel)
        for call, kernel in zip(drawn, taken, strict=True)
        if chosen(call, tuple(capability)) != kernel
    }
    assert not wrong
    assert len(set(taken)) > 1


BACKWARDS = (
    MARKED
    + """
from torch.nn.attention import SDPBackend, sdpa_kernel
ran = []
for number, call in enumerate(json.loads('CALLS')):
    kind = getattr(torch, call["kind"])
    three = [torch.empty(call[name], dtype=kind, device="cuda", requires_grad=True) for name in "qkv"]
    try:
        with sdpa_kernel(getattr(SDPBackend, call["kernel"])):
            out = torch.nn.functional.scaled_dot_product_attention(*three, enable_gqa=call["shared"])
    except RuntimeError:
        continue
    mark()
    made = torch.autograd.grad(out, three, torch.empty_like(out))
    mark()
    ran.append(number)
    del made, out, three
print(json.dumps([torch.cuda.get_device_capability(), ran, between_marks()]))
"""
)


def backwards(seed: int) -> list[dict[str, Any]]:
    """Return calls of the memory-efficient and the flash kernel drawn at random."""
    drawn = random.Random(seed)
    found = []
    for _ in range(200):
        kernel = drawn.choice(["EFFICIENT_ATTENTION", "EFFICIENT_ATTENTION", "FLASH_ATTENTION"])
        is_flash = kernel == "FLASH_ATTENTION"
        batch, heads, width = drawn.choice([1, 2, 4]), drawn.choice([1, 3, 4, 8, 12]), 8 * drawn.randint(1, 32)
        rows = drawn.choice([2, 17, 64, 100, 128, 200, 256, 512, 1000, 1024])
        of_key = drawn.choice([heads, heads, 1]) if is_flash else heads, drawn.choice([rows, rows, 64, 300])
        found.append(
            {
                "kernel": kernel,
                "kind": drawn.choice(["float16", "bfloat16"] if is_flash else ["float32", "float16", "bfloat16"]),
                "q": (batch, heads, rows, width),
                "k": (batch, *of_key, width),
                "v": (batch, *of_key, width if is_flash else drawn.choice([width, width, 64])),
                "shared": of_key[0] != heads,
            }
        )
    return found


@pytest.mark.parametrize("gpu", ["t4-16gb", "rtx3090-24gb", "h100-80gb", "rtx5090-32gb"])
def test_backward_takes_what_predictions_say(ask_driverless: Ask, gpu: str) -> None:
    drawn = backwards(seed=len(gpu))
    capability, ran, groups = ask_driverless(BACKWARDS.replace("CALLS", json.dumps(drawn)), gpu=gpu)
    for number, asked in zip(ran, groups, strict=True):
        call = drawn[number]
        query, key, value = (
            torch.empty(call[name], dtype=getattr(torch, call["kind"]), device="meta") for name in "qkv"
        )
        if call["kernel"] == "FLASH_ATTENTION":
            sizes = flash_backward_sizes(query, key)
        else:
            sizes = efficient_backward_sizes(query, key, value, tuple(capability))
        assert set(sizes) <= set(asked), call
    assert len(ran) > 50
