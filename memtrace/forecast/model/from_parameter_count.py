"""A model of a stated number of parameters, where nothing else is known: a shape in the manner of Llama.

In: a number of parameters. Out: a `ModelSpec` with exactly that number. Weights, gradients and states follow from the
number alone; activations follow from the assumed shape, so an estimate says so and widens its range.
"""

from __future__ import annotations

import re
from dataclasses import replace

from memtrace.errors import MemtraceError
from memtrace.forecast.model.parameters import count_parameters
from memtrace.forecast.model.spec import ModelSpec

WIDTH_PER_LAYER = 128
"""Hidden size over layers: 128 in GPT-3 175B and Llama 7B, 102 to 130 in Llama 13B to 405B."""
HEAD_DIM = 128
VOCABULARY = 32000
MAX_COUNT = 2**50
"""Below what a count is: parameters of a model, tokens of a step."""
_COUNT = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([KMBT]?)\s*", re.IGNORECASE)
_POWERS = {"": 0, "K": 1, "M": 2, "B": 3, "T": 4}


def parse_count(text: str, *, unit: int = 1000) -> int:
    """Return the number that a count such as "7B" or "4M" means; a K is `unit`, an M its square, and so on.

    >>> parse_count("7B"), parse_count("1.5m"), parse_count("4M", unit=1024), parse_count("4096")
    (7000000000, 1500000, 4194304, 4096)

    Raises:
        MemtraceError: the text is not a positive number with an optional K, M, B or T.
    """
    match = _COUNT.fullmatch(text)
    number = float(match[1]) * unit ** _POWERS[match[2].upper()] if match else 0.0
    if not 0.5 < number < MAX_COUNT:
        raise MemtraceError(f"not a count: {text[:60]!r}", hint="write a number with K, M, B or T, as in 7B")
    return round(number)


def spec_of_size(number: int) -> ModelSpec:
    """Return a Llama-like model of exactly so many parameters.

    >>> spec = spec_of_size(7_000_000_000)
    >>> spec.hidden, spec.num_layers
    (4096, 33)
    """
    if number < 10_000:
        raise MemtraceError(f"{number} parameters are too few for a transformer", hint="give its dimensions instead")
    # 12·h² a layer and h/128 layers: 12·h³/128 without the embedding, which is taken off first.
    hidden = 8
    for _ in range(40):
        body = max(number - 2 * VOCABULARY * hidden, number / 2)
        hidden = round((body * WIDTH_PER_LAYER / 12) ** (1 / 3))
    unit = HEAD_DIM if hidden >= 4 * HEAD_DIM else 8
    hidden = max(unit, round(hidden / unit) * unit)
    vocabulary = min(VOCABULARY, max(64, number // (8 * hidden)))
    spec = ModelSpec(
        name=f"{number:,} parameters",
        architecture="llama",
        num_layers=1,
        hidden=hidden,
        num_heads=hidden // unit,
        num_kv_heads=hidden // unit,
        head_dim=unit,
        ffn=8 * hidden // 3,
        vocabulary=vocabulary,
        gated=True,
        activation="silu",
        tied=False,
        has_qkv_bias=False,
        has_out_bias=False,
        has_mlp_bias=False,
        norm="rms",
        has_norm_bias=False,
    )
    parts = count_parameters(spec)
    layers = max(1, round((number - parts.embedding.total - parts.head.total) / parts.dense_layer.total))
    spec = replace(spec, num_layers=layers)
    return replace(spec, extra_parameters=number - count_parameters(spec).total)
