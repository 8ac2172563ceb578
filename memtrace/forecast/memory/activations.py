"""The activations of a transformer, term by term: every tensor that autograd keeps for backward.

In: `ModelSpec`, `Run`, `Layout`. Out: `Terms`, named bytes on one rank for one micro-batch. Sizes may be arrays, one
number a layout. With 16-bit weights, dropout and written-out attention on CUDA the terms of a GPT are those of
Korthikanti et al., `s·b·h·(34 + 5·a·s/h)`, and the statistics of the norms, which that paper leaves out.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from memtrace.forecast.memory.formulas import Size
from memtrace.forecast.memory.kept_by_adapters import with_adapters
from memtrace.forecast.memory.kept_by_kernels import (
    NORMED_OUTPUTS,
    OWN_ROTATIONS,
    PLAIN,
    ROTARY,
    ROTATION_SETS,
    Kernels,
    dropout_of,
    final_dropout_of,
    inner_dropout_of,
    is_encoder,
    kernels_of,
)
from memtrace.forecast.memory.kept_by_two_stacks import (
    changes_before_down,
    cross_attention,
    learned_scores,
    scores_of_stack,
)
from memtrace.forecast.memory.layout import Layout, Run, ceil_div
from memtrace.forecast.model.precision import PRECISIONS
from memtrace.forecast.model.spec import ModelSpec

Terms = dict[str, Size]
"""Bytes by the name of what they hold."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ActivationTerms:
    """Everything that is kept for backward, on one rank, of one micro-batch."""

    dense_layer: Terms
    moe_layer: Terms
    """Empty without experts."""
    embedding: Terms
    head: Terms
    """Final norm, logits and loss."""
    layer_input: Size
    """What full recomputation keeps of a layer."""
    attention_core: Size
    """Everything of a layer between the scores and their product with values."""
    dropped: Size
    """What selective recomputation drops of a dense layer: the attention core, or all but some products."""
    dropped_of_experts: Size
    """The same of a layer with experts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Shape:
    """Sizes on one rank, in elements."""

    tokens: Size
    """Tokens of the micro-batch that this rank computes."""
    whole: Size
    """Tokens of what tensor parallelism leaves whole; divided under sequence parallelism."""
    tp: Size
    scores: Size
    """Attention weights of one head."""


def activation_terms(spec: ModelSpec, run: Run, layout: Layout) -> ActivationTerms:
    """Return every tensor kept for backward, without recomputation.

    >>> from memtrace.forecast.model.presets import preset
    >>> run = Run(micro_batch=1, sequence=2048, attention="explicit", dropout=0.1)
    >>> terms = activation_terms(preset("gpt3-175b"), run, Layout()).dense_layer
    >>> terms["attention: weights after softmax"] == 2 * 96 * 2048**2
    True
    """
    kernels = kernels_of(spec, run)
    local = ceil_div(run.sequence, layout.cp)
    tokens = run.micro_batch * local
    divisor = layout.tp if layout.sequence_parallel else 1
    shape = _Shape(
        tokens=tokens, whole=ceil_div(tokens, divisor), tp=layout.tp, scores=run.micro_batch * local * run.sequence
    )
    attention = _attention(spec, run, kernels, shape) | _norms(spec, kernels, shape)
    attention |= learned_scores(spec, run) | cross_attention(spec, run)
    core = sum(size for name, size in attention.items() if "attention: weights" in name)
    dense = attention | _mlp(spec, run, kernels, shape, spec.ffn, 1) if spec.ffn else attention
    experts = attention | _mixture(spec, run, kernels, shape) if spec.num_moe_layers else {}
    dense = with_adapters(dense, spec, run, kernels, tokens)
    by_operator = run.framework in BY_OPERATOR
    return ActivationTerms(
        dense_layer=dense,
        moe_layer=experts,
        dropped=total(dense) - _kept_products(spec, run, shape, spec.ffn) if by_operator else core,
        dropped_of_experts=total(experts) - _kept_products(spec, run, shape, spec.expert_ffn * spec.experts_per_token)
        if by_operator and experts
        else core,
        embedding=_embedding(spec, run, kernels, shape),
        head=with_adapters(_head(spec, run, kernels, shape), spec, run, kernels, tokens),
        layer_input=shape.whole * spec.hidden * run.precision.residual_bytes,
        attention_core=core,
    )


def _kept_products(spec: ModelSpec, run: Run, shape: _Shape, ffn: int) -> Size:
    """Return what torchtitan's selective recomputation keeps of a layer: of its products each second one.

    Source: torchtitan `activation_checkpoint.py`: `mm` is kept where its count is odd, attention's output always.
    Of a Llama those are queries, values, the gate and the down projection, beside the layer's input.
    """
    compute = run.precision.compute_bytes
    widths = 2 * spec.query_width + spec.kv_width + ffn
    whole = shape.whole * spec.hidden * (run.precision.residual_bytes + compute)
    return (
        whole
        + ceil_div(shape.tokens * widths, shape.tp) * compute
        + 4 * ceil_div(spec.num_heads, shape.tp) * shape.tokens
    )


BY_OPERATOR = frozenset({"torchtitan"})
"""Frameworks whose selective recomputation chooses operators."""


def total(terms: Terms) -> Size:
    """Return the sum of terms."""
    return sum(terms.values())


def _norms(spec: ModelSpec, kernels: Kernels, shape: _Shape) -> Terms:
    number = spec.norms_per_layer
    # Side by side, attention and MLP norm one and the same tensor.
    inputs = 1 if spec.is_parallel and spec.norm == "layer" else number
    outputs = NORMED_OUTPUTS.get(spec.architecture, 0)
    width = (inputs - outputs) * kernels.norm_input + outputs * kernels.qk_norm_input
    terms = {
        "norms: inputs": width * shape.whole * spec.hidden,
        "norms: statistics": number * shape.whole * kernels.norm_statistics,
    }
    if spec.qk_norm != "none":
        width = spec.query_width + spec.kv_width
        heads = spec.num_heads + spec.num_kv_heads if spec.qk_norm == "head" else 2
        terms["norms: queries and keys"] = ceil_div(shape.tokens * width, shape.tp) * kernels.qk_norm_input
        terms["norms: their statistics"] = ceil_div(shape.tokens * heads, shape.tp) * kernels.norm_statistics
    return terms


def _attention(spec: ModelSpec, run: Run, kernels: Kernels, shape: _Shape) -> Terms:
    heads = ceil_div(spec.num_heads, shape.tp)
    query = ceil_div(shape.tokens * spec.query_width, shape.tp)
    output = ceil_div(shape.tokens * spec.output_width, shape.tp)
    keys, values = (
        (query, output)
        if kernels.expands_kv
        else (ceil_div(shape.tokens * width, shape.tp) for width in (spec.kv_width, spec.value_width))
    )
    if spec.kv_rank and not kernels.keeps_weights:
        # The values are a view of what was made of the compressed vector, beside the part of the keys in it.
        unrotated = spec.num_heads * (spec.head_dim - spec.rotated_dim)
        values = values + ceil_div(shape.tokens * unrotated, shape.tp)
    terms = {
        "attention: input": kernels.qkv_inputs * shape.whole * spec.hidden * kernels.projection_input,
        "attention: queries": query * kernels.query,
        "attention: keys": keys * kernels.query,
        "attention: values": values * kernels.value,
        "attention: output": output * kernels.projection_input,
    }
    if spec.kv_rank:
        # Of each compressed vector: the input of its norm, and what is made of that, which the next matrix reads.
        compressed = shape.tokens * (spec.query_rank + spec.kv_rank)
        terms["attention: compressed"] = compressed * kernels.qk_norm_input
        terms["attention: compressed, normed"] = compressed * kernels.projection_input
        terms["attention: statistics of compressed"] = 2 * shape.tokens * kernels.norm_statistics
    if kernels.keeps_log_sum_exp:
        terms["attention: log-sum-exp"] = 4 * heads * shape.tokens
    if kernels.keeps_fused_qkv:
        terms["attention: queries and keys before rotation"] = (query + keys) * kernels.value
    if run.framework == "nanotron":
        # Rotation and the joining of keys and values copy; published peaks also say that the fused projection stays.
        terms["attention: fused projection"] = (query + keys + values) * kernels.value
        returned = 2 * shape.whole * spec.hidden * run.precision.compute_bytes
        terms["tensor parallel: what collectives returned"] = (shape.tp > 1) * returned
    if kernels.cached_kv:
        terms["attention: keys and values, cached"] = (
            ceil_div(shape.tokens * spec.kv_width, shape.tp) * kernels.cached_kv
        )
    if spec.architecture in OWN_ROTATIONS:
        rotated = spec.rotated_dim or spec.head_dim
        size = OWN_ROTATIONS[spec.architecture] or run.precision.residual_bytes
        terms["attention: rotations"] = 2 * run.sequence * rotated * size
    if kernels.copies_output:
        terms["attention: output of the kernel"] = output * kernels.value
    if kernels.keeps_weights:
        weights = heads * shape.scores
        terms["attention: causal mask"] = shape.scores // run.micro_batch * kernels.causal_mask
        terms["attention: weights after softmax"] = weights * kernels.softmax
        terms["attention: weights, cast"] = weights * kernels.softmax_cast
        if spec.caps_scores:
            terms["attention: weights before softmax, capped"] = weights * run.precision.compute_bytes
        terms["attention: weights, dropout mask"] = weights * kernels.attention_mask
        terms["attention: weights after dropout"] = weights * kernels.dropped
    if dropout_of(spec.hidden_dropout, run) > 0:
        terms["attention: dropout mask"] = shape.whole * spec.hidden * kernels.hidden_mask
    return terms


def _mlp(spec: ModelSpec, run: Run, kernels: Kernels, shape: _Shape, ffn: int, copies: Size) -> Terms:
    """Return the terms of an MLP through which every token goes `copies` times."""
    inner = ceil_div(copies * shape.tokens * ffn, shape.tp)
    compute = run.precision.compute_bytes
    terms = {
        "MLP: input": kernels.gate_inputs * copies * shape.whole * spec.hidden * kernels.projection_input,
        "MLP: saved by its function": inner * kernels.activation,
    }
    if spec.is_parallel and spec.norms_per_layer == 1 and not run.precision.is_autocast:
        # Attention and MLP read one tensor, which is counted there.
        del terms["MLP: input"]
    if spec.gated:
        terms["MLP: gate"] = inner * kernels.gate
        terms["MLP: up projection"] = inner * compute
    terms["MLP: input of the down projection"] = inner * kernels.projection_input
    if inner_dropout_of(spec, run) > 0:
        terms["MLP: dropout mask inside"] = inner * kernels.hidden_mask
    if not spec.gated and not kernels.activation and changes_before_down(spec, run):
        # The function keeps what it returned, which is not what the next matrix reads.
        terms["MLP: saved by its function"] = inner * compute
    if dropout_of(spec.hidden_dropout, run) > 0:
        terms["MLP: dropout mask"] = shape.whole * spec.hidden * kernels.hidden_mask
    return terms


def _mixture(spec: ModelSpec, run: Run, kernels: Kernels, shape: _Shape) -> Terms:
    """Return the terms of a mixture of experts whose tokens are spread evenly: each goes to `experts_per_token`."""
    within = _of_experts(run)
    kept = kernels if within is run else kernels_of(spec, within)
    routed = _mlp(spec, within, kept, shape, spec.expert_ffn, spec.experts_per_token)
    terms = {f"experts, {name}": size for name, size in routed.items()}
    terms["router: probabilities"] = 2 * 4 * shape.tokens * spec.num_experts
    # Each expert's output is multiplied with its weight, for whose gradient it is kept.
    width = spec.experts_per_token * spec.hidden
    terms["experts: outputs"] = shape.whole * width * within.precision.compute_bytes
    if spec.shared_ffn:
        shared = _mlp(spec, run, kernels, shape, spec.shared_ffn, 1)
        terms |= {f"shared expert, {name}": size for name, size in shared.items()}
    return terms


def _of_experts(run: Run) -> Run:
    """Return a run as experts see it: their grouped product is not on autocast's lists, and stays in float32.

    Source: `transformers` `integrations/moe.py`, `_grouped_mm`, which casts its input to the type of the weights.
    """
    return replace(run, precision=PRECISIONS["fp32"]) if run.precision.is_autocast else run


def _embedding(spec: ModelSpec, run: Run, kernels: Kernels, shape: _Shape) -> Terms:
    terms: Terms = {}
    if dropout_of(spec.embedding_dropout, run) > 0:
        residual = run.precision.residual_bytes
        mask = residual if run.backend == "cpu" else 1
        terms["embedding: dropout mask"] = shape.whole * spec.hidden * mask
    if spec.architecture in ROTARY:
        # Cosine and sine of every position, shared by all layers.
        width = (spec.rotated_dim or spec.head_dim) * ROTATION_SETS.get(spec.architecture, 1)
        terms["embedding: rotations"] = 2 * run.sequence * width * run.precision.residual_bytes
    if spec.architecture != PLAIN and run.attention == "explicit" and not is_encoder(spec):
        # Checkpointed layers hold the mask that they were given.
        mask = run.micro_batch * run.sequence * run.sequence * run.precision.residual_bytes
        terms["embedding: causal mask"] = (run.recompute == 2) * mask
    if spec.position_buckets:
        terms |= scores_of_stack(spec, run)
    if spec.has_embedding_norm:
        terms["embedding: norm"] = shape.whole * (spec.hidden * kernels.norm_input + kernels.norm_statistics)
    return terms


def _head(spec: ModelSpec, run: Run, kernels: Kernels, shape: _Shape) -> Terms:
    terms: Terms = {}
    if spec.has_final_norm:
        terms["final norm"] = shape.whole * (spec.hidden * kernels.norm_input + kernels.norm_statistics)
    if final_dropout_of(spec, run) > 0:
        residual = run.precision.residual_bytes
        terms["final norm: dropout mask"] = shape.whole * spec.hidden * (residual if run.backend == "cpu" else 1)
    if not spec.has_head:
        return terms
    vocabulary = ceil_div(spec.vocabulary, shape.tp)
    terms["head: input"] = shape.whole * spec.hidden * kernels.projection_input
    terms["head: logits"] = shape.tokens * vocabulary * kernels.logits
    terms["loss: log-probabilities"] = shape.tokens * vocabulary * kernels.log_probabilities
    if spec.caps_logits:
        terms["head: capped logits"] = shape.tokens * vocabulary * run.precision.compute_bytes
    if spec.has_head_transform:
        width = spec.hidden * (kernels.projection_input + run.precision.compute_bytes + kernels.norm_input)
        terms["head: transform"] = shape.whole * (width + kernels.norm_statistics)
    return terms
