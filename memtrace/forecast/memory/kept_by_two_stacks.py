"""What autograd keeps of an encoder and a decoder beside what any layers keep: cross-attention, learned scores.

In: `ModelSpec`, `Run`. Out: named bytes of one micro-batch, on a rank that has whole layers. Source: `transformers`
`modeling_t5.py`, and what autograd was seen to keep of it on the CPU (tests/forecast/test_encoder_decoder.py).
"""

from __future__ import annotations

from dataclasses import replace

from memtrace.forecast.memory.formulas import Size
from memtrace.forecast.memory.kept_by_kernels import T5_FAMILY, dropout_of, inner_dropout_of, is_encoder, kernels_of
from memtrace.forecast.memory.layout import Run, ceil_div
from memtrace.forecast.model.spec import ModelSpec

Terms = dict[str, Size]
ALIGNED_SCORES = 16
"""Elements to whose multiple the memory-efficient kernel pads a row of added scores (`pad_bias` in torch)."""


def changes_before_down(spec: ModelSpec, run: Run) -> bool:
    """Return whether something stands between the MLP's function and its down projection.

    A dropout, or under autocast T5's cast to the float32 of the matrix, which autocast casts back.
    """
    return inner_dropout_of(spec, run) > 0 or (spec.architecture in T5_FAMILY and run.precision.is_autocast)


def encoder_run(run: Run) -> Run:
    """Return a run as the encoder sees it."""
    return replace(run, sequence=run.source, source_sequence=None)


def encoder_output(spec: ModelSpec, run: Run) -> Size:
    """Return the bytes of the encoder's output: every layer of the decoder reads it, and the loop holds it."""
    return run.micro_batch * run.source * spec.hidden * run.precision.residual_bytes


def cross_attention(spec: ModelSpec, run: Run) -> Terms:
    """Return the attention of a decoder's layer to the encoder's output; empty where there is no encoder.

    Its norm is among the norms of the layer.
    """
    if spec.encoder is None:
        return {}
    kernels, compute = kernels_of(spec, run, crosses=True), run.precision.compute_bytes
    tokens, source = run.micro_batch * run.sequence, run.micro_batch * run.source
    terms = {
        "cross-attention: input": tokens * spec.hidden * kernels.projection_input,
        "cross-attention: queries": tokens * spec.query_width * kernels.query,
        "cross-attention: keys": source * spec.kv_width * kernels.query,
        "cross-attention: values": source * spec.kv_width * kernels.value,
        "cross-attention: output": tokens * spec.output_width * kernels.projection_input,
    }
    if kernels.cached_kv:
        terms["cross-attention: keys and values, cached"] = source * spec.kv_width * kernels.cached_kv
    if run.precision.is_autocast:
        # The matrices of keys and values cast the encoder's output, each for itself.
        terms["cross-attention: encoder's output, cast"] = 2 * source * spec.hidden * kernels.projection_input
    if kernels.keeps_log_sum_exp:
        terms["cross-attention: log-sum-exp"] = 4 * spec.num_heads * tokens
    if kernels.keeps_weights:
        weights = spec.num_heads * tokens * run.source
        terms["cross-attention: weights after softmax"] = weights * kernels.softmax
        terms["cross-attention: weights, cast"] = weights * kernels.softmax_cast
        terms["cross-attention: weights, dropout mask"] = weights * kernels.attention_mask
        terms["cross-attention: weights after dropout"] = weights * kernels.dropped
    elif spec.has_positions_each_layer or run.is_padded:
        terms["cross-attention: added scores"] = _added_scores(spec, run, run.source, crosses=True) * compute
    if dropout_of(spec.hidden_dropout, run) > 0:
        terms["cross-attention: dropout mask"] = tokens * spec.hidden * kernels.hidden_mask
    return terms


def learned_scores(spec: ModelSpec, run: Run) -> Terms:
    """Return what a layer keeps of the scores that it adds to attention, beside the attention weights themselves."""
    if not spec.position_buckets:
        return {}
    terms: Terms = {}
    if run.attention != "explicit":
        pairs = run.sequence * run.sequence
        terms["attention: causal mask of the scores"] = 0 if is_encoder(spec) else pairs
        if run.backend == "cuda":
            added = _added_scores(spec, run, run.sequence) * run.precision.compute_bytes
            terms["attention: added scores"] = added
    if spec.has_positions_each_layer:
        terms["attention: distances"] = 8 * run.sequence * run.sequence
    return terms


def scores_of_stack(spec: ModelSpec, run: Run) -> Terms:
    """Return what a stack keeps once of the scores that its layers add to attention."""
    terms: Terms = {}
    pairs = run.sequence * run.sequence
    if not spec.has_positions_each_layer:
        terms["embedding: distances"] = 8 * pairs
        # Checkpointed layers hold the scores that they were given.
        terms["embedding: learned scores"] = (
            (run.recompute == 2) * spec.num_heads * pairs * run.precision.residual_bytes
        )
        if spec.encoder is not None and not kernels_of(spec, run, crosses=True).keeps_weights:
            added = _added_scores(spec, run, run.source, crosses=True) * run.precision.compute_bytes
            terms["embedding: scores of cross-attention"] = (run.recompute < 2) * (not run.is_padded) * added
    return terms


def _added_scores(spec: ModelSpec, run: Run, keys: Size, *, crosses: bool = False) -> Size:
    """Return the elements of what a fused kernel adds to the scores of all heads, of each sequence or of all."""
    sequences = run.micro_batch if run.is_padded and (crosses or is_encoder(spec)) else 1
    row = keys if run.backend == "cpu" else ALIGNED_SCORES * ceil_div(keys, ALIGNED_SCORES)
    return sequences * spec.num_heads * run.sequence * row


def scores_gradient(spec: ModelSpec, run: Run) -> Size:
    """Return the gradient of the scores that a layer adds; written out, it is that of the scores themselves."""
    if not spec.position_buckets or kernels_of(spec, run).keeps_weights:
        return 0 * run.sequence
    return run.micro_batch * spec.num_heads * run.sequence * run.sequence * run.precision.compute_bytes


def scores_sum(spec: ModelSpec, run: Run) -> Size:
    """Return the gradient of the scores that all layers of a stack add, added up over sequences and layers."""
    has_sum = spec.position_buckets > 0 and not spec.has_positions_each_layer
    return has_sum * spec.num_heads * run.sequence * run.sequence * run.precision.residual_bytes


def cross_scores_gradient(spec: ModelSpec, run: Run) -> Size:
    """Return the gradient of the zeros that cross-attention adds: checkpointed, they want one (`modeling_t5.py`)."""
    of_layer = spec.num_heads * run.sequence * run.source * run.precision.compute_bytes
    layers = spec.num_layers if spec.has_positions_each_layer else 1
    return (run.recompute == 2) * (spec.position_buckets > 0) * layers * of_layer
