"""How long a step takes, analytically: computation, communication that is not hidden, and the pipeline's bubble.

In: `ModelSpec`, `Run`, `Layout`, `Gpu`, a `Speed`. Out: `StepTime`, seconds. Sizes may be arrays, one number a layout.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from memtrace.forecast.gpus import Gpu
from memtrace.forecast.memory.formulas import Size
from memtrace.forecast.memory.layout import Layout, Run
from memtrace.forecast.model.parameters import num_parameters
from memtrace.forecast.model.spec import ModelSpec
from memtrace.forecast.step_time.communication import (
    context_seconds,
    expert_seconds,
    gathering_seconds,
    reducing_seconds,
    sending_seconds,
    tensor_seconds,
)
from memtrace.forecast.step_time.computation import Kernels, flops_per_token, joining_seconds, kernels
from memtrace.forecast.step_time.links import Links, hidden_by_products
from memtrace.forecast.step_time.schedule import StageLayers, filling_share, stage_layers
from memtrace.forecast.step_time.speed import Speed

UPDATE_BYTES = 30
"""Bytes that a fused Adam moves a parameter: gradient, both states and the master copy read, the last three and the
weight written."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepTime:
    """The time of one step, seconds."""

    total: Size
    terms: Mapping[str, Size]
    """Parts by name that add up to the total: what the fullest stage does, and what it waits for."""
    tokens_per_second_per_gpu: Size
    mfu: Size
    """Share of the data sheet's throughput that goes into what the model needs."""

    @property
    def compute(self) -> Size:
        """What a rank does itself: kernels, recomputation, optimizer, and its own code where that is slower."""
        return sum(self.terms[name] for name in COMPUTATION)

    @property
    def communication(self) -> Size:
        """What is not hidden behind computation."""
        return sum(self.terms[name] for name in COMMUNICATION)

    @property
    def bubble(self) -> Size:
        """Idle time of the pipeline."""
        return self.terms["bubble"]


COMPUTATION = ("compute", "recompute", "launch", "optimizer")
"""Terms of what a rank does itself."""
COMMUNICATION = ("tensor", "context", "expert", "pipeline", "gather", "reduce")
"""Terms of communication."""


def step_time(spec: ModelSpec, run: Run, layout: Layout, gpu: Gpu, speed: Speed) -> StepTime:
    """Return the time of a step of `accumulation` micro-batches on each data-parallel rank.

    Under 1F1B the step takes as long as the slowest stage for all its micro-batches, and the others once more for one:
    while the pipeline fills and drains. An interleaved schedule of v stages a rank divides that by v, and hands
    micro-batches on v times as often (Narayanan et al., section 2.2). Zero-bubble schedules: see `filling_share`.
    """
    links = Links(gpu=gpu, speed=speed)
    parts = kernels(spec, run, layout, gpu, speed)
    layers = stage_layers(spec, run, layout, parts)
    micro = _micro_batch(spec, run, layout, links, parts, layers)
    busy = {name: seconds * run.accumulation for name, seconds in micro.items()}
    one = sum(micro.values())
    waiting = filling_share(layout, computing=micro["compute"], repeated=micro["recompute"], whole=one)
    filling = one * (layout.pp - 1) * layers.mean_share * waiting
    compute = micro["compute"] + micro["recompute"]
    reducing = reducing_seconds(spec, run, layout, links)
    # The last backward pass hides the reduction of gradients; later stages wait for it less long.
    exposed = np.maximum(reducing - speed.overlap * compute * 2 / 3, (1 - speed.overlap) * reducing)
    update = _update_seconds(spec, run, layout, links)
    terms = {**busy, "bubble": filling, "reduce": exposed, "optimizer": update}
    total = sum(terms.values())
    all_tokens = run.micro_batch * run.sequence * run.accumulation * layout.dp
    per_gpu = all_tokens / total / layout.world_size
    mfu = per_gpu * flops_per_token(spec, run.sequence) / gpu.flops
    return StepTime(total=total, terms=terms, tokens_per_second_per_gpu=per_gpu, mfu=mfu)


def _micro_batch(
    spec: ModelSpec, run: Run, layout: Layout, links: Links, parts: Kernels, layers: StageLayers
) -> dict[str, Size]:
    """Return the seconds of one micro-batch on the slowest stage, forward and backward, by what they go into."""
    speed = links.speed
    compute = layers.layers * parts.layer + layers.heads * parts.head
    again = layers.layers * parts.repeated
    tensor = layers.layers * tensor_seconds(spec, run, layout, links) * (1 - hidden_by_products(run.framework, links))
    expert = layers.layers * expert_seconds(spec, run, layout, links)
    ring = layers.layers * context_seconds(spec, run, layout, links)
    # Keys and values travel while attention computes; what latency they have, and what is left, is waited for.
    context = np.maximum(ring - speed.overlap * compute * _attention_share(spec, run), (1 - speed.overlap) * ring)
    context = context + layers.layers * joining_seconds(spec, run, layout, links.gpu, speed)
    gathering = gathering_seconds(spec, run, layout, links)
    hidden = speed.overlap * (compute + again)
    gather = np.maximum(gathering - hidden, (1 - speed.overlap) * gathering)
    running = compute + again + tensor + expert + context + gather
    # Python launches kernels ahead of the GPU; where it is slower than they are, the GPU waits for it.
    a_layer = np.maximum(speed.launch_s, (layout.pp > 1) * layout.tp * speed.crowded_launch_s)
    own_code = a_layer * layers.layers * (1 + (run.recompute == 2) / 3)
    return {
        "compute": compute,
        "recompute": again,
        "launch": np.maximum(own_code - running, 0),
        "tensor": tensor,
        "context": context,
        "expert": expert,
        "gather": gather,
        "pipeline": sending_seconds(spec, run, layout, links)
        * (1 - hidden_by_products(run.framework, links) * (layout.virtual_stages > 1)),
    }


def _attention_share(spec: ModelSpec, run: Run) -> Size:
    """Return the share of a model's operations that is attention."""
    return 12 * spec.num_layers * spec.query_width * run.sequence / flops_per_token(spec, run.sequence)


def _update_seconds(spec: ModelSpec, run: Run, layout: Layout, links: Links) -> Size:
    """Return the seconds of the optimizer, which moves values and computes next to nothing."""
    shards = (layout.zero < 1) + (layout.zero >= 1) * layout.shards
    elements = num_parameters(spec) / layout.tp / layout.pp / shards
    return UPDATE_BYTES * elements / (links.gpu.memory_bytes_s * links.speed.memory_share)
