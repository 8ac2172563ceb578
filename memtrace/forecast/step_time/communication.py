"""How long collectives take, before anything hides them: volume over the bandwidth of a ring, and their latency.

In: `ModelSpec`, `Run`, `Layout`, `Links`. Out: seconds. Sizes may be arrays, one number a layout.
"""

from __future__ import annotations

import numpy as np

from memtrace.forecast.memory.formulas import Size
from memtrace.forecast.memory.held_by_framework import scatters_by_stage
from memtrace.forecast.memory.layout import Layout, Run
from memtrace.forecast.model.parameters import num_parameters
from memtrace.forecast.model.spec import ModelSpec
from memtrace.forecast.step_time.links import Links


def _hidden_bytes(spec: ModelSpec, run: Run, layout: Layout) -> Size:
    """Return the bytes of the values between two layers, of one micro-batch on one context-parallel rank."""
    return run.micro_batch * run.sequence / layout.cp * spec.hidden * run.precision.compute_bytes


def tensor_seconds(spec: ModelSpec, run: Run, layout: Layout, links: Links) -> Size:
    """Return the time of tensor parallelism in a layer.

    Two all-reduces forward, two backward, two for a repeated forward. Source: Shoeybi et al., Megatron-LM, arXiv
    1909.08053; with sequence parallelism all-gathers and reduce-scatters of the same volume (Korthikanti et al.).
    """
    rounds = 4 + 2 * (run.recompute == 2)
    volume = 2 * (layout.tp - 1) / layout.tp * _hidden_bytes(spec, run, layout)
    return rounds * links.tensor_parallel(layout.tp, volume)


def sending_seconds(spec: ModelSpec, run: Run, layout: Layout, links: Links) -> Size:
    """Return the time in which a stage sends a micro-batch forward and its gradient back, for each virtual stage."""
    times = 2 * (layout.pp > 1) * layout.virtual_stages
    inner = layout.tp * layout.cp * layout.dp
    seconds = _hidden_bytes(spec, run, layout) / layout.tp / links.one_to_one(layout.world_size)
    return times * (seconds + links.latency(inner, layout.pp) + links.speed.send_s / 2)


def expert_seconds(spec: ModelSpec, run: Run, layout: Layout, links: Links) -> Size:
    """Return the time of sending tokens to experts and back, in a layer: four all-to-alls, forward and backward."""
    if not spec.num_moe_layers:
        return 0.0
    volume = spec.experts_per_token * _hidden_bytes(spec, run, layout) / layout.tp * (layout.ep - 1) / layout.ep
    share = spec.num_moe_layers / spec.num_layers
    inner = layout.tp * layout.cp
    return 4 * share * (volume / links.one_to_one(inner * layout.ep) + links.latency(inner, layout.ep))


def context_seconds(spec: ModelSpec, run: Run, layout: Layout, links: Links) -> Size:
    """Return the time of passing keys and values round the ring in a layer, before anything hides it.

    Source: Liu et al., Ring Attention, arXiv 2310.01889. Keys and values go round once forward; backward they and
    their gradients do. Each of the steps of a ring is a message of its own.
    """
    pair = 2 * run.micro_batch * run.sequence / layout.cp * spec.kv_width / layout.tp * run.precision.compute_bytes
    steps = 3 * (layout.cp - 1)
    return links.collective(layout.tp, layout.cp, steps * pair, steps)


def gathering_seconds(spec: ModelSpec, run: Run, layout: Layout, links: Links) -> Size:
    """Return the time in which ZeRO-3 gathers weights, forward and backward, and scatters gradients, a micro-batch.

    Source: ZeRO paper, section 7.2.2. Under ZeRO-2 gradients alone are scattered, each micro-batch, or once for those
    that a stage runs in a row. Weights that stay after forward are gathered once.
    """
    weights, gradients = _model_bytes(spec, run, layout)
    ring = (layout.shards - 1) / layout.shards
    times = (layout.zero >= 3) * (1 + layout.reshard)
    in_a_row = np.minimum(layout.group + layout.pp * (layout.group == 0), run.accumulation)
    scatters = (layout.zero >= 2) / np.where(scatters_by_stage(run, layout), in_a_row, 1)
    volume = times * ring * weights + scatters * ring * gradients
    layers = spec.num_layers / layout.pp
    messages = (times + scatters) * layers
    return links.collective(layout.tp, layout.shards, volume, messages)


def reducing_seconds(spec: ModelSpec, run: Run, layout: Layout, links: Links) -> Size:
    """Return the time of a step's gradient reduction and, where states are sharded, of gathering the new weights."""
    weights, gradients = _model_bytes(spec, run, layout)
    ring = (layout.zero < 2) * (layout.shards - 1) / layout.shards
    volume = ring * (gradients + (layout.zero >= 1) * weights + (layout.zero < 1) * gradients)
    return links.collective(layout.tp, layout.shards, volume, volume / links.speed.bucket_bytes)


def _model_bytes(spec: ModelSpec, run: Run, layout: Layout) -> tuple[Size, Size]:
    """Return weights and gradients of one rank before data parallelism divides them."""
    elements = num_parameters(spec) / layout.tp / layout.pp
    return elements * run.precision.compute_bytes, elements * run.precision.reduced_bytes
