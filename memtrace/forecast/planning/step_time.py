"""How long a step takes, analytically: computation, communication that is not hidden, and the pipeline's bubble.

In: `ModelSpec`, `Run`, `Layout`, `Gpu`, a `Speed`. Out: `StepTime`, seconds. Sizes may be arrays, one number a layout.

Ranks are placed with tensor parallelism innermost, then context, then data, then pipeline parallelism. An axis uses the
links inside a machine as long as it and all before it fit into one machine. The model ranks layouts; it is not a
prediction of seconds: kernels are as fast as stated, whatever their sizes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from memtrace.forecast.gpus import Gpu
from memtrace.forecast.memory.formulas import Size, model_flops_per_token
from memtrace.forecast.memory.layout import Layout, Run
from memtrace.forecast.model.parameters import active_parameters, count_parameters, num_parameters
from memtrace.forecast.model.spec import ModelSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class Speed:
    """What is assumed of hardware in use."""

    compute_share: float = 0.55
    """Share of the data sheet's throughput that the kernels of a large transformer reach."""
    bandwidth_share: float = 0.75
    """Share of a link's bandwidth that collectives reach."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepTime:
    """The time of one step, seconds."""

    total: Size
    compute: Size
    """Of one rank, recomputation included."""
    communication: Size
    """What is not hidden behind computation."""
    bubble: Size
    """Idle time of the pipeline."""
    tokens_per_second_per_gpu: Size
    mfu: Size
    """Share of the data sheet's throughput that goes into what the model needs."""

    @property
    def terms(self) -> dict[str, Size]:
        """The parts that add up to the total, by name."""
        return {"compute": self.compute, "communication": self.communication, "bubble": self.bubble}


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


def step_time(spec: ModelSpec, run: Run, layout: Layout, gpu: Gpu, speed: Speed) -> StepTime:
    """Return the time of a step of `accumulation` micro-batches on each data-parallel rank."""
    tokens = run.micro_batch * run.sequence
    flops = flops_per_token(spec, run.sequence) * tokens
    share = layout.tp * layout.pp * layout.cp
    rate = gpu.flops * speed.compute_share
    compute = flops * (1 + _recomputed_share(spec, run)) / share / rate
    links = _Links(layout=layout, gpu=gpu, share=speed.bandwidth_share)
    exposed = _tensor(spec, run, layout, links) + _pipeline(spec, run, layout, links)
    exposed = exposed + _experts(spec, run, layout, links) + _context(spec, run, layout, links, compute)
    gathering = _gathering(spec, run, layout, links)
    # Gathering the next layer's weights runs beside this one's computation.
    micro_batch = compute + exposed + np.maximum(gathering - compute, 0)
    # Gradients are reduced beside the last backward pass, two thirds of its time.
    reducing = np.maximum(_reducing(spec, run, layout, links) - compute * 2 / 3, 0)
    busy = micro_batch * run.accumulation
    bubble = micro_batch * (layout.pp - 1)
    total = busy + bubble + reducing
    all_tokens = tokens * run.accumulation * layout.dp
    per_gpu = all_tokens / total / layout.world_size
    return StepTime(
        total=total,
        compute=compute * run.accumulation,
        communication=total - bubble - compute * run.accumulation,
        bubble=bubble,
        tokens_per_second_per_gpu=per_gpu,
        mfu=per_gpu * flops_per_token(spec, run.sequence) / gpu.flops,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Links:
    """Bandwidth of each axis, bytes a second and one way."""

    layout: Layout
    gpu: Gpu
    share: float

    def of(self, span: Size) -> Size:
        """Return the bandwidth between ranks that so many neighbouring GPUs hold."""
        inside = (span <= self.gpu.gpus_per_node) * 1
        return self.share * (inside * self.gpu.intra_bytes_s + (1 - inside) * self.gpu.inter_bytes_s)


def _recomputed_share(spec: ModelSpec, run: Run) -> Size:
    """Return what recomputation adds: a third forward pass of the layers, or the scores of attention."""
    scores = 4 * spec.num_layers * spec.query_width * run.sequence / flops_per_token(spec, run.sequence)
    outside = count_parameters(spec).head.total + spec.vocabulary * spec.hidden * spec.tied
    layers = 1 - 6 * outside / flops_per_token(spec, run.sequence)
    return (run.recompute == 2) * layers / 3 + (run.recompute == 1) * scores


def _hidden_bytes(spec: ModelSpec, run: Run, layout: Layout) -> Size:
    """Return the bytes of the values between two layers, of one micro-batch on one context-parallel rank."""
    return run.micro_batch * run.sequence / layout.cp * spec.hidden * run.precision.compute_bytes


def _tensor(spec: ModelSpec, run: Run, layout: Layout, links: _Links) -> Size:
    """Return the time of tensor parallelism: two all-reduces forward, two backward, two for a repeated forward.

    Source: Shoeybi et al., Megatron-LM, arXiv 1909.08053; with sequence parallelism all-gathers and reduce-scatters of
    the same volume (Korthikanti et al.). None of it is hidden.
    """
    rounds = 4 + 2 * (run.recompute == 2)
    volume = 2 * (layout.tp - 1) / layout.tp * _hidden_bytes(spec, run, layout)
    return rounds * spec.num_layers / layout.pp * volume / links.of(layout.tp)


def _pipeline(spec: ModelSpec, run: Run, layout: Layout, links: _Links) -> Size:
    """Return the time in which a stage sends values forward and gradients back."""
    volume = 2 * (layout.pp > 1) * _hidden_bytes(spec, run, layout) / layout.tp
    return volume / links.of(layout.world_size)


def _experts(spec: ModelSpec, run: Run, layout: Layout, links: _Links) -> Size:
    """Return the time of sending tokens to experts and back, forward and backward: four all-to-alls a layer."""
    if not spec.num_moe_layers:
        return 0.0
    volume = spec.experts_per_token * _hidden_bytes(spec, run, layout) / layout.tp * (layout.ep - 1) / layout.ep
    return 4 * spec.num_moe_layers / layout.pp * volume / links.of(layout.tp * layout.cp * layout.ep)


def _context(spec: ModelSpec, run: Run, layout: Layout, links: _Links, compute: Size) -> Size:
    """Return what of passing keys and values round the ring computation does not hide.

    Source: Liu et al., Ring Attention, arXiv 2310.01889. Keys and values go round once forward; backward they and
    their gradients do. Hidden behind the part of computation that is attention.
    """
    pair = 2 * run.micro_batch * run.sequence / layout.cp * spec.kv_width / layout.tp * run.precision.compute_bytes
    volume = 3 * (layout.cp - 1) * pair * spec.num_layers / layout.pp
    attention = 12 * spec.num_layers * spec.query_width * run.sequence / flops_per_token(spec, run.sequence)
    return np.maximum(volume / links.of(layout.tp * layout.cp) - compute * attention, 0)


def _gathering(spec: ModelSpec, run: Run, layout: Layout, links: _Links) -> Size:
    """Return the time in which ZeRO-3 gathers weights, forward and backward, and scatters gradients, a micro-batch.

    Source: ZeRO paper, section 7.2.2. Under ZeRO-2 gradients alone are scattered, each micro-batch.
    """
    weights, gradients = _model_bytes(spec, run, layout)
    ring = (layout.shards - 1) / layout.shards
    volume = (layout.zero >= 3) * 2 * ring * weights + (layout.zero >= 2) * ring * gradients
    return volume / links.of(layout.tp * layout.shards)


def _reducing(spec: ModelSpec, run: Run, layout: Layout, links: _Links) -> Size:
    """Return the time of a step's gradient reduction and, where states are sharded, of gathering the new weights."""
    _, gradients = _model_bytes(spec, run, layout)
    return (layout.zero < 2) * 2 * (layout.shards - 1) / layout.shards * gradients / links.of(layout.tp * layout.shards)


def _model_bytes(spec: ModelSpec, run: Run, layout: Layout) -> tuple[Size, Size]:
    """Return weights and gradients of one rank before data parallelism divides them."""
    elements = num_parameters(spec) / layout.tp / layout.pp
    return elements * run.precision.compute_bytes, elements * run.precision.gradient_bytes
