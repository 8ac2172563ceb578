"""Operators of torch, one after the other, forward and backward: what `benchmarks/operators.py` runs under two engines.

    python benchmarks/programs/many_operators.py SETTING [NAME ...]

Of each line of `operators.txt` it prints the bytes that were requested at the peak, beyond those before. A setting is
the type of inputs and the type of layers, and whether autocast is on (`SETTINGS`). Backward runs outside of autocast.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
import torch.utils.checkpoint
from torch import nn

SETTINGS: dict[str, tuple[torch.dtype, torch.dtype, torch.dtype | None]] = {
    "float32": (torch.float32, torch.float32, None),
    "bfloat16": (torch.bfloat16, torch.bfloat16, None),
    "float16": (torch.float16, torch.float16, None),
    "autocast-bfloat16": (torch.float32, torch.float32, torch.bfloat16),
    "autocast-float16": (torch.float32, torch.float32, torch.float16),
    "autocast-bfloat16-within": (torch.bfloat16, torch.float32, torch.bfloat16),
    "autocast-float16-within": (torch.float16, torch.float32, torch.float16),
}
"""By name: the type of inputs, of layers, and the one that autocast lowers to. Within a model inputs have that type."""
TABLE = Path(__file__).with_name("operators.txt")


class _Layers:
    """Makes layers of `torch.nn` on the GPU in a type."""

    def __init__(self, kind: torch.dtype) -> None:
        self._kind = kind

    def __getattr__(self, name: str) -> Any:
        return functools.partial(getattr(nn, name), device="cuda", dtype=self._kind)


def _random(*shape: int, kind: torch.dtype, grad: bool) -> torch.Tensor:
    return torch.randn(*shape, device="cuda", dtype=kind).requires_grad_(grad)


def nested(kind: torch.dtype) -> Any:
    """Return three sequences of unequal length."""
    rows = [torch.ones(length, 256, device="cuda", dtype=kind) for length in (100, 200, 300)]
    return torch.nested.nested_tensor(rows, layout=torch.jagged, requires_grad=True)


def nested_attention(kind: torch.dtype) -> Any:
    """Return the attention of sequences of unequal length to themselves."""
    query, key, value = (nested(kind).unflatten(-1, [4, 64]).transpose(1, 2) for _ in range(3))
    return F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(-2).values()


def flex(query: Any, key: Any, value: Any, *, masked: bool = False) -> Any:
    """Return attention as `flex_attention` computes it where nobody compiles it."""
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention

    mask = create_block_mask(lambda _b, _h, q, k: q >= k, None, None, 256, 256) if masked else None
    return flex_attention(query, key, value, block_mask=mask)


def set_rows(one: Any, where: Any, value: Any) -> Any:
    """Write into a tensor at places."""
    one[where] = value
    return one


def with_gradient(one: Any) -> Any:
    """Return a parameter with a gradient."""
    one.grad = torch.ones_like(one)
    return one


def vocabulary(inputs: torch.dtype, layers: torch.dtype) -> dict[str, Any]:
    """Return what the expressions may name: `x` has a gradient, what is `given` has none, `wide` is always float32."""
    return {
        **globals(),
        "kind": inputs,
        "layer": _Layers(layers),
        "x": functools.partial(_random, kind=inputs, grad=True),
        "given": functools.partial(_random, kind=inputs, grad=False),
        "wide": functools.partial(_random, kind=torch.float32, grad=True),
        "wide_given": functools.partial(_random, kind=torch.float32, grad=False),
        "zeros": functools.partial(torch.zeros, device="cuda", dtype=inputs),
        "ones": functools.partial(torch.ones, device="cuda", dtype=inputs),
        "flags": functools.partial(torch.ones, device="cuda", dtype=torch.bool),
        "places": lambda below, *shape: torch.randint(0, below, shape).to("cuda"),
    }


def operators() -> Iterator[tuple[str, str]]:
    """Yield name and expression of each line of the table."""
    for line in TABLE.read_text(encoding="utf-8").splitlines():
        name, colon, expression = line.partition(": ")
        if colon and not name.startswith("#"):
            yield name, expression


def peak_of(expression: Any, names: dict[str, Any], lowered: torch.dtype | None) -> int:
    """Return how many bytes are requested at the peak of one expression and its backward, beyond those before."""
    gc.collect(1)
    torch.cuda.reset_peak_memory_stats()
    # What is requested: what is allocated counts the ends of blocks that are not worth cutting off.
    before = torch.cuda.memory_stats()["requested_bytes.all.current"]
    with torch.autocast("cuda", dtype=lowered) if lowered else contextlib.nullcontext():
        out = eval(expression, names)
        loss = out.sum() if isinstance(out, torch.Tensor) and out.requires_grad else None
    del out
    if loss is not None:
        loss.backward()
    return int(torch.cuda.memory_stats()["requested_bytes.all.peak"]) - before


def main() -> None:
    """Print the peak of each operator, or why it failed."""
    setting, *chosen = sys.argv[1:]
    inputs, layers, lowered = SETTINGS[setting]
    names = vocabulary(inputs, layers)
    for kind in (torch.float32, inputs):
        # The workspaces of cuBLAS are taken once.
        nn.Linear(64, 64, device="cuda", dtype=kind)(_random(64, 64, kind=kind, grad=True)).sum().backward()
    # What is there by now stays: looking through it for each operator takes most of the time.
    gc.freeze()
    for name, expression in operators():
        if chosen and name not in chosen:
            continue
        try:
            said = str(peak_of(compile(expression, name, "eval"), names, lowered))
        except Exception as error:
            said = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        print(f"peak {name} {said}", flush=True)


if __name__ == "__main__":
    main()
