"""What one rank holds under ZeRO, tensor, pipeline, context, expert and data parallelism: weights to buffers.

In: `ModelSpec`, `Run`, `Layout`, and which pipeline stage. Out: `RankModel`, bytes on one rank. Sizes may be arrays,
one number a layout.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from memtrace.forecast.formulas import Size, in_flight_microbatches
from memtrace.forecast.layout import Layout, Run, ceil_div
from memtrace.forecast.model_spec import ModelSpec
from memtrace.forecast.optimizers import STEP_BYTES
from memtrace.forecast.parameter_tensors import Division, ParameterTensor, Place, parameter_tensors

MIB = 1024**2
CUDA_CONTEXT_BYTES = 1024 * MIB
"""Context and loaded kernels of a process. Ultra-Scale Playbook: 1 to 2 GB are taken before any tensor."""
NCCL_BYTES = 256 * MIB
"""Buffers of one communicator. Assumed: NCCL_BUFFSIZE is 4 MiB a channel and direction, with up to 32 channels."""
CUBLAS_WORKSPACE_BYTES = 32 * MIB
"""cuBLAS workspace of torch on Hopper; 8,519,680 bytes before (aten/src/ATen/cuda/CublasHandlePool.cpp)."""
BUCKET_BYTES = 25 * MIB
"""A bucket of DistributedDataParallel (`bucket_cap_mb`); one is reduced while the next is filled."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shard:
    """An amount on one rank before data-parallel sharding, parted as ZeRO divides it."""

    dense: Size
    """Divided among all data- and context-parallel ranks."""
    experts: Size
    """Divided among those that hold the same experts."""

    def over(self, layout: Layout, is_sharded: Size) -> Size:
        """Return the amount that remains where ZeRO divides it, which may be an array of yes and no."""
        dense = ceil_div(self.dense, 1 + is_sharded * (layout.shards - 1))
        replicas = layout.shards // layout.ep
        return dense + ceil_div(self.experts, 1 + is_sharded * (replicas - 1))

    @property
    def total(self) -> Size:
        """All of it."""
        return self.dense + self.experts


@dataclass(frozen=True, slots=True, kw_only=True)
class RankModel:
    """Bytes of the model's own tensors on one rank of one pipeline stage."""

    elements: Shard
    """Parameters of the rank before ZeRO divides them."""
    weights: Size
    gradients: Size
    layer_gradients: Size
    """The part of one layer."""
    embedding_gradients: Size
    """The part of the embedding and of what belongs to it."""
    accumulated_gradients: Size
    """A wider copy in which micro-batches are added up; 0 in most recipes."""
    states: Size
    """States of the optimizer and the master copy of the weights."""
    gathered: Size
    """Weights that ZeRO-3 holds whole for a moment: a layer, the next one, embedding and head."""
    reduced: Size
    """Whole gradients of a layer that ZeRO-3 is about to scatter."""
    buckets: Size
    """Communication buffers of data parallelism."""
    layers: Size
    """Layers of the stage."""


def rank_model(spec: ModelSpec, run: Run, layout: Layout, *, is_last: bool) -> RankModel:
    """Return what a rank of the first or of the last pipeline stage holds; of the only one, everything.

    >>> from memtrace.forecast.presets import preset
    >>> llama = rank_model(preset("llama-3-8b"), Run(), Layout(dp=8, zero=3), is_last=False)
    >>> llama.weights == 2 * 8030261248 // 8
    True
    """
    precision, tensors = run.precision, parameter_tensors(spec)
    elements = _on_stage(spec, tensors, lambda one: one.numel, layout, is_last=is_last)
    elements = Shard(dense=elements.dense + _extra(spec, layout), experts=elements.experts)
    steps = STEP_BYTES if run.backend == "cpu" and run.optimizer.counts_steps else 0
    states = _on_stage(
        spec, tensors, lambda one: run.optimizer.tensor_bytes(one, precision) + steps, layout, is_last=is_last
    )
    extra_states = _extra(spec, layout) * precision.state_bytes * (2 if run.optimizer.name == "adamw" else 1)
    states = Shard(dense=states.dense + extra_states * (run.optimizer.name != "sgd"), experts=states.experts)
    master = precision.master_bytes
    per_layer = ceil_div(elements.total, layers_of_stage(spec, layout))
    gathers, whole_weights = (layout.zero >= 3) * (layout.shards > 1), precision.compute_bytes
    root = _on_stage(spec, _at(tensors, *_ROOT), lambda one: one.numel, layout, is_last=is_last)
    embedding = _on_stage(spec, _at(tensors, Place.EMBEDDING), lambda one: one.numel, layout, is_last=is_last)
    shards_gradients = layout.zero >= 2
    gradients = elements.over(layout, shards_gradients) * precision.gradient_bytes
    in_layers = gradients - root.over(layout, shards_gradients) * precision.gradient_bytes
    return RankModel(
        elements=elements,
        weights=elements.over(layout, layout.zero >= 3) * (precision.weight_bytes + precision.weight_copy_bytes),
        gradients=gradients,
        layer_gradients=in_layers // layers_of_stage(spec, layout),
        embedding_gradients=embedding.over(layout, shards_gradients) * precision.gradient_bytes,
        accumulated_gradients=elements.over(layout, shards_gradients) * precision.accumulation_bytes,
        states=states.over(layout, layout.zero >= 1) + elements.over(layout, layout.zero >= 1) * master,
        gathered=gathers * (2 * per_layer + root.total) * whole_weights,
        reduced=gathers * per_layer * precision.gradient_bytes,
        buckets=(layout.shards > 1) * (layout.zero < 3) * 2 * BUCKET_BYTES,
        layers=layers_of_stage(spec, layout),
    )


_ROOT = (Place.EMBEDDING, Place.HEAD)


def _at(tensors: list[ParameterTensor], *places: Place) -> list[ParameterTensor]:
    return [one for one in tensors if one.place in places]


def layers_of_stage(spec: ModelSpec, layout: Layout) -> Size:
    """Return the layers of the fullest stage."""
    return ceil_div(spec.num_layers, layout.pp)


def in_flight(run: Run, layout: Layout, *, is_last: bool) -> Size:
    """Return for how many micro-batches a stage holds activations under 1F1B."""
    stage = layout.pp - 1 if is_last else 0 * layout.pp
    return in_flight_microbatches(layout.pp, stage, run.accumulation)


def fsdp_elements(spec: ModelSpec, shards: int) -> int:
    """Return the parameters a rank of FSDP2 stores: each tensor cut along its first dimension, padded to equal parts.

    Source: torch.distributed.fsdp.fully_shard, `FSDPParam._init_sharded_param`: every rank allocates the padded shard.

    >>> spec = ModelSpec(
    ...     name="x", num_layers=1, hidden=6, num_heads=1, num_kv_heads=1, head_dim=6, ffn=8, vocabulary=10
    ... )
    >>> fsdp_elements(spec, 1), fsdp_elements(spec, 4)
    (374, 111)
    """
    tensors = parameter_tensors(spec)
    return sum(one.copies * ceil_div(one.shape[0], shards) * (one.numel // one.shape[0]) for one in tensors)


def context_bytes(run: Run, layout: Layout) -> Size:
    """Return what a GPU process holds beside tensors: context, workspace, communicators; nothing on the CPU."""
    if run.backend == "cpu":
        return 0 * layout.pp
    axes = (layout.dp, layout.tp, layout.pp, layout.cp, layout.ep)
    communicators = sum((axis > 1) * 1 for axis in axes)
    return CUDA_CONTEXT_BYTES + CUBLAS_WORKSPACE_BYTES + communicators * NCCL_BYTES


def _on_stage(
    spec: ModelSpec,
    tensors: list[ParameterTensor],
    amount: Callable[[ParameterTensor], int],
    layout: Layout,
    *,
    is_last: bool,
) -> Shard:
    """Return a sum over the tensors of a stage; `amount` says what one copy of a tensor counts."""
    dense: Size = 0
    experts: Size = 0
    for one in tensors:
        here = _copies_on_stage(spec, one, layout, is_last=is_last)
        if one.division is Division.EXPERTS:
            experts = experts + here * ceil_div(amount(one), layout.tp * layout.ep)
        elif one.division is Division.SPLIT:
            dense = dense + here * ceil_div(amount(one), layout.tp)
        else:
            dense = dense + here * amount(one)
    return Shard(dense=dense, experts=experts)


def _copies_on_stage(spec: ModelSpec, tensor: ParameterTensor, layout: Layout, *, is_last: bool) -> Size:
    """Return how many copies of a tensor the first or last stage holds."""
    if tensor.place is Place.HEAD:
        return 1 if is_last else (layout.pp == 1) * 1
    if tensor.place is Place.EMBEDDING:
        # A tied head of its own stage has a copy of the matrix.
        has_copy = is_last and spec.tied and spec.has_head and tensor.name == "embedding"
        return 1 if not is_last or has_copy else (layout.pp == 1) * 1
    return ceil_div(tensor.copies, layout.pp)


def _extra(spec: ModelSpec, layout: Layout) -> Size:
    """Return the parameters beyond the listed shapes on one rank."""
    return ceil_div(spec.extra_parameters, layout.pp * layout.tp)
