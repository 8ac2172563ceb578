"""Which attention kernel a prediction takes, and which torch's own CUDA code chooses for the same call."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from memtrace.hooks.fake.kernels.attention_choice import Attended, choose_backend  # noqa: E402
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
