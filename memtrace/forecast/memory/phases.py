"""The fullest moments of a step, phase by phase, and what memory then consists of.

In: `ModelSpec`, `Run`, `Layout`, pipeline stage, first step or steady state. Out: `Moment`s, bytes by category on one
rank. A moment is a point of the program at which memory can be largest: at the end of forward, in the backward pass of
the loss, of the head, of the last and of the first layer, and in the optimizer. Between these points memory rises or
falls evenly, since all layers are alike, so the largest of them is the peak. Sizes may be arrays, one number a layout.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from memtrace.forecast.memory.activations import ActivationTerms, activation_terms, total
from memtrace.forecast.memory.formulas import Size
from memtrace.forecast.memory.held_by_framework import PASSES_AHEAD, adds_up, in_flight_bytes, sent_on
from memtrace.forecast.memory.kept_by_kernels import SAVED_BY_ACTIVATION, is_loss_wider, kernels_of, loss_bytes
from memtrace.forecast.memory.kept_by_two_stacks import (
    changes_before_down,
    cross_scores_gradient,
    encoder_output,
    encoder_run,
    scores_gradient,
    scores_sum,
)
from memtrace.forecast.memory.layout import Layout, Run, ceil_div
from memtrace.forecast.memory.sharding import RankModel, context_bytes, held_by_stage, rank_model
from memtrace.forecast.memory.stages import layers_of_stage
from memtrace.forecast.model.adapters import dequantized_bytes, trained_precision, trained_tensors
from memtrace.forecast.model.parameter_tensors import Division, Place
from memtrace.forecast.model.parameters import autocast_copies
from memtrace.forecast.model.spec import ModelSpec
from memtrace.schema.names import Category, Phase

PARAMETER, GRADIENT, STATE = Category.PARAMETER.value, Category.GRADIENT.value, Category.OPTIMIZER_STATE.value
ACTIVATION, TEMPORARY, COMMUNICATION = (
    Category.ACTIVATION.value,
    Category.TEMPORARY.value,
    Category.COMMUNICATION.value,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """One point of a step."""

    phase: str
    where: str
    """What the program is doing, in words."""
    by_category: dict[str, Size]
    recurring: Size = 0
    """What of them are activations of further micro-batches in flight, whose tensors have the sizes of the first's."""
    yielding: Size = 0
    """What of them the allocator waits for and takes back when it has nothing else."""

    @property
    def num_bytes(self) -> Size:
        """Bytes of all categories."""
        return sum(self.by_category.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class _Stage:
    """Everything that the moments of one pipeline stage are made of, in bytes on one rank."""

    model: RankModel
    layers: Size
    """Activations of all layers, of all micro-batches in flight."""
    recurring: Size
    """The part of all micro-batches but one."""
    layer: Size
    """All terms of one layer, as if nothing were recomputed."""
    recomputed: Size
    """What the backward pass of one layer computes again before it begins."""
    mlp: Size
    """Terms of the MLP of one layer."""
    scores: Size
    """Attention weights of one layer as the softmax returns them: the type of its gradients."""
    embedding: Size
    """What stands before the layers: of a decoder all that its encoder keeps, too."""
    head: Size
    """Final norm, head and loss; 0 on other stages."""
    logits: Size
    log_probabilities: Size
    is_loss_wider: bool
    """Whether the loss copies the logits to float32."""
    head_casts: Size
    """Copy of the head's matrix that autocast made."""
    casts: Size
    """Copies of the layers' matrices."""
    inner: Size
    """A gradient as wide as the MLP."""
    hidden: Size
    """A gradient as wide as the model."""
    head_gradient: Size
    """Gradient of the head's matrix."""
    pending: Size
    """Gradient of a matrix that waits for another of the same, with which it is added up."""
    scores_gradient: Size
    """Gradient of the scores that a layer's attention adds, of all sequences."""
    scores_sum: Size
    """The same added up over sequences and layers."""
    output_gradient: Size
    """Gradient of the encoder's output, added up over the layers of the decoder."""
    dequantized: Size
    """A matrix of a quantized base, made whole for one product."""
    down_gradient: Size
    """Gradient of the down projection of one layer, which backward makes first."""


LOSS_COPIES: dict[str, Callable[[Size], Size]] = {
    "plain": lambda logits: logits,
    "parallel": lambda logits: logits,
    "fused": lambda logits: 0 * logits,
    "chunked": lambda logits: ceil_div(logits, CHUNKS),
}
"""A float32 copy of the logits as each loss makes it: of all, of none, or of a part of the tokens."""
LOSS_GRADIENTS = {"plain": 2, "parallel": 1, "fused": 0, "chunked": 2}
"""Such copies that are there at once in its backward pass, beside what it kept."""
CHUNKS = 8
"""Parts in which a loss goes through the tokens: torchtune's and Liger's default."""


def largest(values: Iterable[Size]) -> Size:
    """Return the largest of some numbers, or of some arrays element by element.

    >>> largest([3, 5]), largest([np.array([1, 9]), 4]).tolist()
    (5, [4, 9])
    """
    known = list(values)
    if any(isinstance(one, np.ndarray) for one in known):
        highest: Any = known[0]
        for one in known[1:]:
            highest = np.maximum(highest, one)
        return highest
    return max(known)


def moments(spec: ModelSpec, run: Run, layout: Layout, *, is_last: bool, steady: bool) -> list[Moment]:
    """Return the points of a step at which memory can be largest, in the order of the program.

    In the first step (`steady` false) the states of the optimizer do not exist before the optimizer runs. `is_last`
    chooses the last pipeline stage rather than the first.
    """
    stage = _stage(spec, run, layout, is_last=is_last)
    model = stage.model
    standing = {PARAMETER: model.weights, GRADIENT: _standing_gradients(run, model), COMMUNICATION: model.buckets}
    standing |= {Category.WORKSPACE.value: context_bytes(run, layout)}
    states = model.states if steady else 0
    before = standing | {STATE: states}
    after = standing | {STATE: model.states}
    if spec.encoder is None:
        running = [*_forward(run, stage, before), *_backward(spec, run, layout, stage, before)]
    else:
        running = _of_two_stacks(spec, spec.encoder, run, layout, stage, before)
    if run.framework in PASSES_AHEAD:
        running = [_beside(one, in_flight_bytes(spec, run, layout)) for one in running]
    return [*running, _optimizer(spec, run, stage, after)]


def _of_two_stacks(
    spec: ModelSpec, encoder: ModelSpec, run: Run, layout: Layout, stage: _Stage, before: dict[str, Size]
) -> list[Moment]:
    """Return the moments of an encoder and a decoder: the encoder runs first, keeps its activations, and goes last."""
    own_run, output = encoder_run(run), encoder_output(spec, run)
    inner = _stage(encoder, own_run, layout, is_last=False)
    whole, own = stage.model, inner.model
    kept = inner.layers + inner.embedding + inner.head + output
    crossed = cross_scores_gradient(spec, run)
    outer = replace(
        stage,
        embedding=stage.embedding + kept,
        scores_sum=stage.scores_sum + crossed,
        output_gradient=output,
        model=replace(whole, gradients=whole.gradients - own.gradients + own.embedding_gradients),
    )
    # The loop holds the encoder's output with the logits. The embedding's gradient waits for the encoder's part.
    inner = replace(
        inner,
        logits=stage.logits + output,
        scores_sum=inner.scores_sum + crossed,
        pending=own.embedding_gradients * (run.adapter is None),
        model=replace(own, gathered=whole.gathered, reduced=whole.reduced),
    )
    decoder_gradients = (1 - adds_up(run)) * (whole.gradients - own.gradients)
    later = before | {GRADIENT: before[GRADIENT] + decoder_gradients}
    first = _forward(own_run, inner, before)[:1]
    *middle, end = [*_forward(run, outer, before), *_backward(spec, run, layout, outer, before)]
    more = {ACTIVATION: end.by_category[ACTIVATION] + kept, TEMPORARY: end.by_category[TEMPORARY] + output + crossed}
    end = replace(end, where="in the embedding of the decoder", by_category=end.by_category | more)
    *last, embedding = _backward(encoder, own_run, layout, inner, later)[2:]
    of_encoder = [replace(one, where=f"{one.where} of the encoder") for one in (*first, *last)]
    return [of_encoder[0], *middle, end, *of_encoder[1:], embedding]


def _beside(moment: Moment, in_flight: Size) -> Moment:
    """Return a moment with what collectives still hold."""
    held = moment.by_category[COMMUNICATION] + in_flight
    return replace(moment, by_category=moment.by_category | {COMMUNICATION: held}, yielding=in_flight)


def _standing_gradients(run: Run, model: RankModel) -> Size:
    """Return gradients that are there before a backward pass: those of earlier micro-batches, and wide copies."""
    return model.accumulated_gradients + adds_up(run) * model.gradients


def _forward(run: Run, stage: _Stage, before: dict[str, Size]) -> list[Moment]:
    upcast = stage.log_probabilities * stage.is_loss_wider
    running = stage.layers + stage.embedding + stage.casts + stage.head_casts
    before = before | {COMMUNICATION: before[COMMUNICATION] + stage.model.gathered}
    end = before | {ACTIVATION: running + stage.head, TEMPORARY: upcast}
    # A layer that is computed again later keeps nothing, but needs room while it runs.
    passing = (run.recompute == 2) * (2 * stage.inner + stage.hidden) + stage.dequantized
    last = before | {ACTIVATION: running, TEMPORARY: passing}
    return [
        Moment(phase=Phase.FORWARD.value, where=where, by_category=sizes, recurring=stage.recurring)
        for where, sizes in (("in the last layer", last), ("at the loss", end))
    ]


def _backward(spec: ModelSpec, run: Run, layout: Layout, stage: _Stage, before: dict[str, Size]) -> list[Moment]:
    """Return the moments of the backward pass, which gives activations back and makes gradients as it goes."""
    model = stage.model
    is_fresh = 1 - adds_up(run)
    before = before | {COMMUNICATION: before[COMMUNICATION] + model.gathered + model.reduced}
    # Copies of weights inside layers that are computed again are gone by now.
    casts = stage.casts * (run.recompute < 2)
    at_loss = stage.layers + stage.embedding + casts + stage.head_casts + stage.head
    one_layer_casts = ceil_div(stage.casts, model.layers)
    again = stage.recomputed + (run.recompute == 2) * one_layer_casts
    last_layer = stage.layers + stage.embedding + casts + stage.logits + again
    first_layer = stage.logits + stage.embedding + stage.layer + one_layer_casts
    pending = stage.pending
    of_head = is_fresh * (stage.head_gradient - pending) * (stage.head_gradient > 0)
    # Where gradients are added up, a new one stands beside the sum for a moment.
    # Under autocast gradients are 16 bits wide first, that of a weight and that of what flows past the layers.
    is_autocast = run.precision.is_autocast * 1
    narrowed = is_autocast * (stage.down_gradient + stage.hidden) // 2
    added = (1 - is_fresh) * (1 - is_autocast) * stage.down_gradient
    in_mlp = _inner_gradients(spec, run) * stage.inner + stage.hidden + narrowed + added + pending + stage.dequantized
    in_mlp = in_mlp + stage.output_gradient
    # The gradient of what the softmax returned, and that of what it was given.
    in_attention = 2 * stage.scores + 2 * stage.hidden + pending + stage.scores_gradient + stage.scores_sum
    in_attention = in_attention + 3 * stage.output_gradient
    down = is_fresh * (1 - is_autocast) * stage.down_gradient
    before_first = is_fresh * (model.gradients - model.embedding_gradients - model.layer_gradients)
    keeps_copy = run.loss in ("plain", "parallel")
    narrow = stage.logits * (stage.is_loss_wider and keeps_copy)
    at_head = stage.log_probabilities + narrow + stage.hidden + pending

    def at(where: str, activations: Size, temporary: Size, gradients: Size, recurring: Size = 0) -> Moment:
        more = {ACTIVATION: activations, TEMPORARY: temporary, GRADIENT: before[GRADIENT] + gradients}
        return Moment(phase=Phase.BACKWARD.value, where=where, by_category=before | more, recurring=recurring)

    return [
        # Two gradients of the logits in float32; the first is given back before the head's begins.
        at("in the loss", at_loss, LOSS_GRADIENTS[run.loss] * stage.log_probabilities, 0, stage.recurring),
        at("in the head", at_loss - keeps_copy * stage.log_probabilities, at_head, of_head, stage.recurring),
        at("in the MLP of the last layer", last_layer, in_mlp, of_head + down, stage.recurring),
        at("in the attention of the last layer", last_layer - stage.mlp, in_attention, of_head + down, stage.recurring),
        at("in the MLP of the first layer", first_layer, in_mlp + stage.scores_sum, before_first + down),
        at("in the embedding", stage.logits, stage.hidden + 2 * pending, is_fresh * model.gradients),
    ]


def _optimizer(spec: ModelSpec, run: Run, stage: _Stage, after: dict[str, Size]) -> Moment:
    model, tensors = stage.model, 0 if run.is_fused else run.optimizer.temporary_tensors
    gradients = after[GRADIENT] + (1 - adds_up(run)) * model.gradients
    if run.backend == "cpu":
        # One tensor after the other: the square root of its second moment, and that divided.
        temporary = (
            2 * tensors * run.precision.state_bytes * max(one.numel for one in trained_tensors(spec, run.adapter))
        )
    else:
        temporary = tensors * ceil_div(model.states, _numbers_a_parameter(run))
    by_category = after | {GRADIENT: gradients, ACTIVATION: stage.logits, TEMPORARY: temporary}
    return Moment(phase=Phase.OPTIMIZER.value, where="in the optimizer", by_category=by_category)


def _numbers_a_parameter(run: Run) -> int:
    """Return how many tensors as large as the parameters the states consist of, the master copy among them."""
    return (2 if run.optimizer.name == "adamw" else 1) + (
        trained_precision(run.precision, run.adapter).master_bytes > 0
    )


def _inner_gradients(spec: ModelSpec, run: Run) -> int:
    """Return how many gradients as wide as the MLP are alive at once in its backward pass.

    One while the down projection gives the gradient of its input. A gate, or a function of several operations, gives
    two more at once, while the input of the down projection is gone. One that keeps what it returned, which is that
    input, gives one more while it is still there.
    """
    keeps_input = not SAVED_BY_ACTIVATION.get(spec.activation, 1) and not changes_before_down(spec, run)
    return 2 if spec.gated or spec.activation in ("gelu_new", "gelu_fast") or keeps_input else 1


def _stage(spec: ModelSpec, run: Run, layout: Layout, *, is_last: bool) -> _Stage:
    terms = activation_terms(spec, run, layout)
    model = rank_model(spec, run, layout, is_last=is_last)
    copies = autocast_copies(spec, run.precision, run.adapter)
    only = (layout.pp == 1) * 1
    has_head = 1 if is_last else only
    layer = total(terms.moe_layer or terms.dense_layer)
    dropped = terms.dropped_of_experts if terms.moe_layer else terms.dropped
    compute, residual = run.precision.compute_bytes, run.precision.residual_bytes
    tokens = run.micro_batch * ceil_div(run.sequence, layout.cp)
    ffn = max(spec.ffn if spec.num_moe_layers < spec.num_layers else 0, spec.expert_ffn * spec.experts_per_token)
    mlp = sum(size for name, size in (terms.moe_layer or terms.dense_layer).items() if "attention" not in name)
    width = spec.embedding_dim or spec.hidden
    head_gradient = ceil_div(spec.vocabulary * width, layout.tp) * run.precision.gradient_bytes * has_head
    head_gradient = head_gradient * (spec.has_head and run.adapter is None)
    one = _layers(spec, terms, run, layout, is_last=is_last)
    held = held_by_stage(one, run, layout, is_last=is_last)
    return _Stage(
        model=model,
        layers=held,
        recurring=largest([held - one, 0 * held]),
        layer=layer,
        recomputed=(run.recompute == 2) * (layer - terms.layer_input) + (run.recompute == 1) * dropped,
        mlp=mlp,
        scores=_softmax_bytes(terms) if kernels_of(spec, run).keeps_weights else 0 * tokens,
        pending=head_gradient * spec.tied,
        scores_gradient=scores_gradient(spec, run),
        scores_sum=scores_sum(spec, run),
        output_gradient=0 * tokens,
        embedding=total(terms.embedding) * (only if is_last else 1),
        head=total(terms.head) * has_head,
        logits=terms.head.get("head: logits", 0) * has_head,
        is_loss_wider=is_loss_wider(spec, run),
        log_probabilities=LOSS_COPIES[run.loss](loss_bytes(spec, run) * tokens * ceil_div(spec.vocabulary, layout.tp))
        * has_head
        * spec.has_head,
        head_casts=ceil_div(copies.head, layout.tp) * has_head,
        casts=ceil_div(copies.layers, layout.tp * layout.pp),
        inner=ceil_div(tokens * ffn, layout.tp) * compute,
        hidden=tokens * spec.hidden * residual,
        down_gradient=_down_gradient(spec, run, layout),
        head_gradient=head_gradient,
        dequantized=dequantized_bytes(spec, run.adapter, run.precision),
    )


def _softmax_bytes(terms: ActivationTerms) -> Size:
    layer = terms.moe_layer or terms.dense_layer
    return largest(layer.get(f"{name}: weights after softmax", 0) for name in ("attention", "cross-attention"))


def _down_gradient(spec: ModelSpec, run: Run, layout: Layout) -> Size:
    place = Place.MOE_LAYER if spec.num_moe_layers else Place.DENSE_LAYER
    found = [one for one in trained_tensors(spec, run.adapter) if one.place is place and ".down" in one.name]
    experts = sum(one.numel for one in found if one.division is Division.EXPERTS)
    dense = sum(one.numel for one in found if one.division is not Division.EXPERTS)
    elements = ceil_div(dense, layout.tp) + ceil_div(experts, layout.tp * layout.ep)
    return elements * trained_precision(run.precision, run.adapter).gradient_bytes


def _layers(spec: ModelSpec, terms: ActivationTerms, run: Run, layout: Layout, *, is_last: bool) -> Size:
    """Return what one micro-batch leaves for backward in all layers of a stage."""
    sums: Size = 0
    for of_layer, number, dropped in (
        (terms.dense_layer, spec.num_layers - spec.num_moe_layers, terms.dropped),
        (terms.moe_layer, spec.num_moe_layers, terms.dropped_of_experts),
    ):
        if number:
            whole = total(of_layer)
            kept = (run.recompute == 0) * whole + (run.recompute == 1) * (whole - dropped)
            here = ceil_div(number, layout.pp)
            if number == spec.num_layers:
                here = layers_of_stage(spec, layout, is_last=is_last)
            sums = sums + here * (kept + (run.recompute == 2) * terms.layer_input)
    return sums + sent_on(terms.layer_input, run, layout, is_last=is_last)
