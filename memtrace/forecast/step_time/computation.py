"""How long the kernels of a micro-batch take on one rank: matrix products, attention, what only moves values, the loss.

In: `ModelSpec`, `Run`, `Layout`, `Gpu`, `Speed`. Out: seconds of one layer and of the head, forward and backward
together. Sizes may be arrays, one number a layout.
"""

from __future__ import annotations

from dataclasses import dataclass

from memtrace.forecast.gpus import Gpu
from memtrace.forecast.memory.formulas import Size, model_flops_per_token
from memtrace.forecast.memory.layout import Layout, Run
from memtrace.forecast.model.parameters import active_parameters, count_parameters
from memtrace.forecast.model.spec import ModelSpec
from memtrace.forecast.step_time.speed import Speed

SCORE_BYTES = 13
"""Bytes that written-out attention moves a score, forward and backward.

Forward writes and reads the product, writes and reads what the softmax made of it (4 passes of 2 bytes); backward reads
the softmax and moves its gradient and that of the product: about 13 with the mask's one byte, fused as Megatron-LM's
softmax kernel is.
"""
LOSS_BYTES = {"plain": 30, "parallel": 30, "fused": 10, "chunked": 10}
"""Bytes that the loss moves a logit: written once and read by two products in 16 bits, and float32 copies of it, its
log-softmax and its gradient; fused kernels work in place."""


JOINED_BYTES = {"queries": 16, "keys and values": 12}
"""Bytes that a step of a ring of context parallelism moves an element, to join what it gives with what is there.

Forward reads a part of the output (2) and reads and writes the sum in float32 (8); backward reads and writes gradients
of the queries, and of keys and values, and reads what is added (6 each). Source: TransformerEngine,
`context_parallel.py`, `flash_attn_fwd_out_correction`.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kernels:
    """Seconds of one micro-batch on one rank, forward and backward."""

    layer: Size
    repeated: Size
    """What recomputation adds to a layer."""
    head: Size
    """Final norm, head and loss."""


def flops_per_token(spec: ModelSpec, sequence: Size) -> Size:
    """Return the operations of a token, forward and backward, without recomputation. See `model_flops_per_token`.

    >>> from memtrace.forecast.model.presets import preset
    >>> round(flops_per_token(preset("gpt3-175b"), 2048) / 1e12, 3)
    1.076
    """
    embedding = spec.vocabulary * (spec.embedding_dim or spec.hidden)
    looked_up = (spec.learned_positions + spec.token_types) * spec.hidden
    matrices = active_parameters(spec) - looked_up - (0 if spec.tied else embedding)
    return model_flops_per_token(matrices, spec.num_layers, spec.query_width, sequence)


def head_flops_per_token(spec: ModelSpec) -> int:
    """Return the operations of final norm and head for a token, forward and backward."""
    shared = spec.vocabulary * (spec.embedding_dim or spec.hidden) * (spec.tied and spec.has_head)
    return 6 * (count_parameters(spec).head.total + shared)


def kernels(spec: ModelSpec, run: Run, layout: Layout, gpu: Gpu, speed: Speed) -> Kernels:
    """Return the seconds of a layer and of the head.

    The products of a layer of 100 wide, with nothing lost to small sizes: operations over throughput.

    >>> from memtrace.forecast.gpus import gpu_named
    >>> from memtrace.forecast.model.presets import preset
    >>> exact = Speed(compute_share=1, attention_share=1, layer_bytes=0)
    >>> found = kernels(preset("gpt3-175b"), Run(sequence=2048), Layout(tp=8), gpu_named("a100-80gb"), exact)
    >>> round(1e3 * found.layer / 2048 * 8 * 312e12 / 1e3 / (6 * 12 * 12288**2 + 12 * 12288 * 2048 / 2), 3)
    1.0
    """
    tokens = run.micro_batch * run.sequence / layout.cp
    attention_flops = 12 * spec.query_width * run.sequence
    whole = flops_per_token(spec, run.sequence)
    matrix_flops = (whole - head_flops_per_token(spec)) / spec.num_layers - attention_flops
    rate = _rate(run, gpu, speed) * speed.compute_share * _share_by_size(spec, layout, tokens, speed)
    products = matrix_flops * tokens / layout.tp / rate
    attention = _attention(spec, run, layout, gpu, speed, tokens * attention_flops / layout.tp)
    moved = speed.layer_bytes * spec.hidden * tokens / _whole_divisor(layout)
    if run.precision.is_8bit and gpu.flops_8bit is not None:
        moved = moved + CAST_BYTES * _cast_elements(spec, layout) * tokens
    moving = moved / (gpu.memory_bytes_s * speed.memory_share)
    layer = products + attention + moving
    return Kernels(
        layer=layer,
        repeated=(run.recompute == 2) * layer / 3 + (run.recompute == 1) * attention / 3,
        head=_head(spec, run, layout, gpu, speed, tokens),
    )


CAST_BYTES = 4
"""Bytes that FP8 moves an element that a product takes, forward and backward: read in 16 bits, written once as it is
and once transposed (Transformer Engine, `cast_transpose`)."""


def _cast_elements(spec: ModelSpec, layout: Layout) -> Size:
    """Return the elements of a token that a layer's products take: what they are given, and the gradients."""
    inner = spec.expert_ffn * spec.experts_per_token or spec.ffn
    given = spec.query_width + inner + spec.query_width + 2 * spec.kv_width + (2 if spec.gated else 1) * inner
    return 4 * spec.hidden / _whole_divisor(layout) + given / layout.tp


def _share_by_size(spec: ModelSpec, layout: Layout, tokens: Size, speed: Speed) -> Size:
    """Return the share of a large product's throughput that one of these sizes reaches: `m/(m + m0) · w/(w + w0)`.

    `m` are the tokens of a micro-batch, `w` is how wide a rank's matrices are: tiles that are not full, and waves of
    them that do not fill the GPU, cost the more the smaller either is.
    """
    width = mean_width(spec, layout)
    return tokens / (tokens + speed.half_tokens) * width / (width + speed.half_width)


def mean_width(spec: ModelSpec, layout: Layout) -> Size:
    """Return how wide the matrices of a layer are on a rank: the harmonic mean of their sides, by their operations.

    Tensor parallelism divides one side of each: what queries, keys and values, gate and up projection give, and what
    the products after them take.

    >>> from memtrace.forecast.model.presets import preset
    >>> [round(float(mean_width(preset(name), Layout(tp=tp)))) for name, tp in (("llama-3-8b", 1), ("llama-3-70b", 4))]
    [6264, 7266]
    """
    inner = spec.expert_ffn or spec.ffn
    divided = [spec.query_width + 2 * spec.kv_width, spec.query_width, (2 if spec.gated else 1) * inner, inner]
    operations = sum(divided) * spec.hidden
    # Of a matrix n by k the mean of 1/n and 1/k weighs n·k: half of n + k.
    return operations / sum((side / layout.tp + spec.hidden) / 2 * layout.tp for side in divided)


def _rate(run: Run, gpu: Gpu, speed: Speed) -> float:
    """Return the operations a second that the data sheet states for the products of layers, less the casts of FP8."""
    if not run.precision.is_8bit or gpu.flops_8bit is None:
        return _rate_16bit(gpu, speed)
    return _rate_16bit(gpu, speed) * gpu.flops_8bit / gpu.flops * speed.share_8bit


def _rate_16bit(gpu: Gpu, speed: Speed) -> float:
    return gpu.flops * (speed.later_share if gpu.capability >= (9, 0) else 1.0)


def _attention(spec: ModelSpec, run: Run, layout: Layout, gpu: Gpu, speed: Speed, flops: Size) -> Size:
    """Return the seconds of the scores and of their product with the values.

    A fused kernel leaves out the half of a causal square that is masked, and computes the scores once more in its
    backward pass, which is part of the share it reaches. Written out, all of it is computed, and every score moved.
    """
    rate = _rate_16bit(gpu, speed) * (speed.unaligned_share if spec.head_dim % 8 else 1.0)
    if run.attention != "explicit":
        return flops / 2 / (rate * speed.attention_share)
    scores = run.micro_batch * run.sequence / layout.cp * run.sequence * spec.num_heads / layout.tp
    return flops / (rate * speed.scores_share) + SCORE_BYTES * scores / (gpu.memory_bytes_s * speed.memory_share)


def joining_seconds(spec: ModelSpec, run: Run, layout: Layout, gpu: Gpu, speed: Speed) -> Size:
    """Return the seconds in which a layer joins the parts of attention that the steps of a ring give.

    >>> from memtrace.forecast.gpus import gpu_named
    >>> from memtrace.forecast.model.presets import preset
    >>> card, model = gpu_named("h100-80gb"), preset("llama-3-8b")
    >>> [round(1e6 * joining_seconds(model, Run(sequence=8192), Layout(cp=cp), card, Speed(memory_share=1.0)))
    ...  for cp in (1, 2, 4)]
    [0, 95, 143]
    """
    tokens = run.micro_batch * run.sequence / layout.cp / layout.tp
    moved = JOINED_BYTES["queries"] * spec.query_width + JOINED_BYTES["keys and values"] * spec.kv_width
    return (layout.cp - 1) * tokens * moved / (gpu.memory_bytes_s * speed.memory_share)


def _whole_divisor(layout: Layout) -> Size:
    return layout.tp if layout.sequence_parallel else 1


def _head(spec: ModelSpec, run: Run, layout: Layout, gpu: Gpu, speed: Speed, tokens: Size) -> Size:
    """Return the seconds of the head's product and of the loss; both are divided by tensor parallelism."""
    share = speed.compute_share * tokens / (tokens + speed.half_tokens)
    product = head_flops_per_token(spec) * tokens / layout.tp / (_rate_16bit(gpu, speed) * share)
    moved = LOSS_BYTES[run.loss] * spec.vocabulary * tokens / layout.tp * spec.has_head
    return product + moved / (gpu.memory_bytes_s * speed.memory_share)
