"""The published formulas of training memory and computation, each with its source and a worked example.

Every function takes whole numbers or numpy arrays of them, so that `plan` evaluates a hundred thousand layouts with the
code that `estimate` runs once. Symbols are those of the papers: `h` hidden size, `L` layers, `v` vocabulary, `a`
heads, `s` tokens of a sequence, `b` sequences of a micro-batch, `t` tensor-parallel ranks. Results are bytes unless
said otherwise.

What a real model saves, kernel by kernel, is in activations.py; this file is what it is checked against.

ZeRO        Rajbhandari et al., Memory Optimizations Toward Training Trillion Parameter Models, arXiv 1910.02054
Korthikanti Korthikanti et al., Reducing Activation Recomputation in Large Transformer Models, arXiv 2205.05198
Narayanan   Narayanan et al., Efficient Large-Scale Language Model Training on GPU Clusters, arXiv 2104.04473
PaLM        Chowdhery et al., arXiv 2204.02311, appendix B
"""

from __future__ import annotations

from typing import Any, TypeAlias

Size: TypeAlias = Any
"""A whole number, or an int64 array with one number a layout."""


def accumulation_steps(global_sequences: Size, micro_batch: Size, dp: Size) -> Size:
    """Return the micro-batches that a rank runs in one step; where they do not divide, the last one is not full.

    >>> accumulation_steps(1024, 2, 64), accumulation_steps(1000, 2, 64)
    (8, 8)
    """
    return -(-global_sequences // (micro_batch * dp))


def zero_bytes(parameters: Size, dp: Size, stage: Size, k: int = 12) -> Size:
    """Return weights, gradients and states a GPU under ZeRO, mixed precision: 2 + 2 + K bytes a parameter.

    Source: the ZeRO paper, figure 1 and section 5; K = 12 for Adam with float32 weights. Stage 0 shards nothing, 1 the
    states, 2 also gradients, 3 also weights.

    >>> [round(zero_bytes(7_500_000_000, 64, stage) / 1e9, 1) for stage in (0, 1, 2, 3)]
    [120.0, 31.4, 16.6, 1.9]
    """
    weights, gradients = 2 * parameters, 2 * parameters
    states = k * parameters
    shards = (stage < 3) + (stage >= 3) * dp, (stage < 2) + (stage >= 2) * dp, (stage < 1) + (stage >= 1) * dp
    return weights / shards[0] + gradients / shards[1] + states / shards[2]


def korthikanti_layer_bytes(s: Size, b: Size, h: Size, a: Size, t: Size = 1, *, technique: str = "none") -> Size:
    """Return the activations of one layer in 16 bits with dropout, without FlashAttention: table 2 of the paper.

    `none` is `s·b·h·(34 + 5·a·s/h)`: attention 11·s·b·h + 5·a·s²·b, MLP 19·s·b·h, two LayerNorms 4·s·b·h.

    >>> korthikanti_layer_bytes(2048, 1, 12288, 96) == 2048 * 12288 * (34 + 5 * 96 * 2048 // 12288)
    True
    >>> korthikanti_layer_bytes(2048, 1, 12288, 96, 8, technique="tensor+sequence+selective") == 2048 * 12288 * 34 // 8
    True

    Raises:
        KeyError: the technique is not one of `KORTHIKANTI_TECHNIQUES`.
    """
    whole, split, scores = KORTHIKANTI_TECHNIQUES[technique]
    sbh, quadratic = s * b * h, 5 * a * s * s * b
    return whole * sbh + (split * sbh + scores * quadratic) // t


KORTHIKANTI_TECHNIQUES = {
    "none": (34, 0, 1),
    "tensor": (10, 24, 1),
    "tensor+sequence": (0, 34, 1),
    "tensor+selective": (10, 24, 0),
    "tensor+sequence+selective": (0, 34, 0),
    "full": (2, 0, 0),
}
"""By technique: bytes per s·b·h that every rank holds, bytes that are divided, and whether 5·a·s²·b remain."""


def selective_saving(s: Size, h: Size, a: Size) -> float:
    """Return the share of a layer's activations that selective recomputation drops: `5as/h` of `34 + 5as/h`.

    Source: Korthikanti et al., section 5: 70 % for GPT-3 175B.

    >>> round(selective_saving(2048, 12288, 96), 3)
    0.702
    """
    quadratic = 5 * a * s / h
    return float(quadratic / (34 + quadratic))


def selective_cost(s: Size, h: Size) -> float:
    """Return the additional computation of selective recomputation as a share: `s / 6h`.

    Source: Korthikanti et al., appendix A: 2.7 % for GPT-3 175B. Computed with the causal half skipped, or by
    FlashAttention's backward pass, it is less.

    >>> round(selective_cost(2048, 12288), 4)
    0.0278
    """
    return float(s / (6 * h))


def model_flops_per_token(matmul_parameters: Size, L: Size, attention_width: Size, s: Size) -> Size:
    """Return floating point operations a token, forward and backward: `6·N + 12·L·(a·d)·s`.

    Source: PaLM, appendix B. `N` counts matrices that a token is multiplied with; attention counts the whole square
    of the sequence, as that paper does. Recomputation is not part of it.

    >>> model_flops_per_token(175_000_000_000, 96, 12288, 2048) / 175e9
    6.165...
    """
    return 6 * matmul_parameters + 12 * L * attention_width * s


def in_flight_microbatches(pp: Size, stage: Size, accumulation: Size) -> Size:
    """Return for how many micro-batches a stage holds activations under 1F1B: `min(m, p − stage)`, stages from 0.

    Source: Narayanan et al., section 2.2.1; Korthikanti et al., section 4.2.3: the first stage holds as many as there
    are stages.

    >>> [in_flight_microbatches(4, stage, 16) for stage in range(4)], in_flight_microbatches(4, 0, 2)
    ([4, 3, 2, 1], 2)
    """
    held = pp - stage
    return held + (accumulation - held) * (accumulation < held)


def interleaved_parts(pp: Size, stage: Size, accumulation: Size, virtual_stages: Size, group: Size = 0) -> Size:
    """Return how many activations of one virtual stage and micro-batch a rank of an interleaved schedule holds.

    Source: Korthikanti et al., section 4.2.3: the first stage holds as much as `p·(1 + (p − 1)/(p·v))` micro-batches of
    all its layers, 29 % more at 175B (p = 8, v = 3) than without interleaving; each later stage begins two parts later
    (Megatron-LM, `get_num_warmup_microbatches`), and there are never more than `m·v`. A stage runs `group`
    micro-batches in a row before the rank's next one, `p` where it is 0.

    >>> interleaved_parts(8, 0, 64, 3), interleaved_parts(8, 7, 64, 3), interleaved_parts(8, 0, 8, 3)
    (31, 17, 24)
    >>> round(31 / 3 / 8, 2)
    1.29
    >>> interleaved_parts(8, 0, 64, 3, group=4)
    23
    """
    parts = 2 * (pp - stage - 1) + (virtual_stages - 1) * (group + pp * (group == 0)) + 1
    whole = accumulation * virtual_stages
    return parts + (whole - parts) * (whole < parts)
