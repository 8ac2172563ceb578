"""What a training program holds beside the tensors of the formulas: gradients between steps, values still on their way.

In: `ModelSpec`, `Run`, `Layout`. Out: bytes on one rank. Both are of nanotron, whose sweep of published runs shows them
(benchmarks/plan_published.py). Sizes may be arrays, one number a layout.
"""

from __future__ import annotations

from memtrace.forecast.memory.formulas import Size
from memtrace.forecast.memory.layout import Layout, Run, ceil_div
from memtrace.forecast.model.spec import ModelSpec

STANDING_GRADIENTS = frozenset({"nanotron"})
"""Frameworks whose 16-bit gradients stay from step to step beside the float32 sums: they are parts of buckets."""
PASSES_AHEAD = {"nanotron": 26}
"""Passes through a layer, forward or backward, whose collectives are held while the program runs ahead of the GPU.

What a collective reads, NCCL's stream still uses when the program gives it back, so that the allocator cannot hand it
out before the GPU is there (`record_stream`). That this is why is likely, not known: the number is fitted. Each of
three models in the sweep alone gives 24 to 28, whatever its size, tensor parallelism and micro-batch.
"""
MAX_GPUS_AHEAD = 256
"""GPUs up to which a pipeline's program is ahead: of 139 deep pipelines on 512, 96 % hold nothing."""


KEEPS_OUTPUTS = frozenset({"deepspeed"})
"""Frameworks that keep what a stage sent on until its backward pass, which needs no more than how it was made.

DeepSpeed has it in `pipe_buffers["outputs"]`; Megatron-LM gives it back (`deallocate_pipeline_outputs`), as Llama 3's
program did (arXiv 2407.21783, section 3.3.2).
"""


def sent_on(output: Size, run: Run, layout: Layout, *, is_last: bool) -> Size:
    """Return what a stage keeps of what it sent on, of a micro-batch; each of a rank's stages sends.

    >>> [int(sent_on(100, Run(framework=name), Layout(pp=4), is_last=False)) for name in ("deepspeed", "megatron")]
    [100, 0]
    """
    keeps = (run.framework in KEEPS_OUTPUTS) & (layout.pp > 1)
    return keeps * layout.virtual_stages * output * (not is_last)


SCATTERS_EACH = frozenset({"megatron"})
"""Frameworks that scatter gradients in each backward pass under ZeRO-2 (`grad_reduce_every_bprop` of Megatron-FSDP)."""


def scatters_by_stage(run: Run, layout: Layout) -> Size:
    """Return where ZeRO-2 adds the gradients of a stage up until its micro-batches in a row are done: 1 or 0.

    So in interleaved schedules, whose ranks do one stage after the other: torch's pipelines, and Llama 3's program.
    """
    return (layout.zero == 2) * (layout.virtual_stages > 1) * (run.framework not in SCATTERS_EACH)


def adds_up(run: Run) -> Size:
    """Return whether gradients are there before a backward pass begins: 1 or 0.

    >>> [int(adds_up(Run(accumulation=1, framework=name))) for name in ("none", "nanotron")]
    [0, 1]
    """
    return ((run.accumulation > 1) | (run.framework in STANDING_GRADIENTS)) * 1


def in_flight_bytes(spec: ModelSpec, run: Run, layout: Layout) -> Size:
    """Return what collectives of tensor parallelism still hold.

    Each pass through a layer reduces and scatters two tensors of the whole width: what attention and MLP give, or the
    gradients of what they were given.

    >>> from memtrace.forecast.model.presets import preset
    >>> run = Run(sequence=4096, accumulation=4, framework="nanotron")
    >>> in_flight_bytes(preset("llama-3-8b"), run, Layout(tp=8)) == 26 * 2 * 2 * 4096 * 4096
    True
    """
    tokens = run.micro_batch * ceil_div(run.sequence, layout.cp)
    whole = 2 * tokens * spec.hidden * run.precision.compute_bytes
    return (layout.tp > 1) * _passes_ahead(spec, run, layout) * whole


def _passes_ahead(spec: ModelSpec, run: Run, layout: Layout) -> Size:
    """Return how many passes the program is ahead: without a pipeline as many as it can be, or one forward pass.

    In a pipeline's first stage that is `1 - 2/p` of it, none with two stages, as its messages make the program wait.
    """
    ahead = PASSES_AHEAD.get(run.framework, 0)
    alone = ahead - (run.accumulation <= 1) * max(0, ahead - spec.num_layers)
    waits = (run.accumulation <= 1) | (layout.world_size > MAX_GPUS_AHEAD)
    in_pipeline = (1 - waits * 1) * (ahead * (layout.pp - 2) // layout.pp)
    return (layout.pp == 1) * alone + (layout.pp > 1) * in_pipeline
