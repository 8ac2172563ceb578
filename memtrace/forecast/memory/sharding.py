"""What one rank holds under ZeRO, tensor, pipeline, context, expert and data parallelism: weights to buffers.

In: `ModelSpec`, `Run`, `Layout`, and which pipeline stage. Out: `RankModel`, bytes on one rank. Sizes may be arrays,
one number a layout.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from memtrace.forecast.memory.formulas import Size, in_flight_microbatches, interleaved_parts
from memtrace.forecast.memory.held_by_framework import scatters_by_stage
from memtrace.forecast.memory.layout import Layout, Run, ceil_div
from memtrace.forecast.memory.optimizers import STEP_BYTES
from memtrace.forecast.memory.stages import layers_of_stage
from memtrace.forecast.model.adapters import base_bytes, trained_precision, trained_tensors
from memtrace.forecast.model.parameter_tensors import Division, ParameterTensor, Place
from memtrace.forecast.model.spec import ModelSpec
from memtrace.schema.workspaces import LARGE_CUBLAS_BYTES

MIB = 1024**2
NCCL_BYTES = 256 * MIB
"""Buffers of one communicator. Assumed: NCCL_BUFFSIZE is 4 MiB a channel and direction, with up to 32 channels."""
BUCKET_BYTES = 25 * MIB
"""A bucket of gradients, as large as `bucket_cap_mb` of torch; one is reduced while the next is filled."""

BUCKETS = {"deepspeed": 10**9}
"""Of frameworks where it differs: DeepSpeed's `reduce_bucket_size` and `allgather_bucket_size` are 5e8 elements."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shard:
    """An amount on one rank of the tensor, pipeline and expert axes, and how data parallelism divides it."""

    dense: Size
    """Divided among all data- and context-parallel ranks."""
    experts: Size
    """Divided among those that hold the same experts."""
    by_rows: Size
    """What remains of all of it where each tensor is cut along its first dimension, as FSDP2 does."""

    def over(self, layout: Layout, from_stage: int) -> Size:
        """Return what remains where ZeRO divides this from a stage on: flat in stages 1 and 2, by rows in stage 3."""
        flat = ceil_div(self.dense, layout.shards) + ceil_div(self.experts, layout.shards // layout.ep)
        is_flat = (layout.zero >= from_stage) & (layout.zero < 3)
        return (layout.zero < from_stage) * self.total + is_flat * flat + (layout.zero >= 3) * self.by_rows

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
    """Weights that ZeRO-3 holds whole: a layer, the next one, embedding and head; all where they stay after forward."""
    reduced: Size
    """Whole gradients that ZeRO-3 is about to scatter: of a layer, embedding and head, or of all layers of a stage; or
    ZeRO-2, of one of a rank's stages."""
    buckets: Size
    """Communication buffers of data parallelism."""
    layers: Size
    """Layers of the stage."""


def rank_model(spec: ModelSpec, run: Run, layout: Layout, *, is_last: bool) -> RankModel:
    """Return what a rank of the first or of the last pipeline stage holds; of the only one, everything.

    >>> from memtrace.forecast.model.presets import preset
    >>> llama = rank_model(preset("llama-3-8b"), Run(), Layout(dp=8, zero=3), is_last=False)
    >>> llama.weights == 2 * 8030261248 // 8
    True
    """
    precision, tensors = trained_precision(run.precision, run.adapter), trained_tensors(spec, run.adapter)
    frozen = 0 if run.adapter is None else base_bytes(spec, run.adapter, run.precision)
    elements = _with_extra(spec, layout, _on_stage(spec, tensors, _numel, layout, is_last=is_last), 1)
    root = _on_stage(spec, _at(tensors, *_ROOT), _numel, layout, is_last=is_last)
    embedding = _on_stage(spec, _at(tensors, Place.EMBEDDING), _numel, layout, is_last=is_last)
    number = layers_of_stage(spec, layout, is_last=is_last) + spec.num_encoder_layers
    layers = number + (number == 0)
    in_encoder = _on_stage(spec, _at(tensors, Place.ENCODER_LAYER), _numel, layout, is_last=is_last)
    # A layer of a decoder is larger than one of its encoder.
    per_layer = ceil_div(elements.total - root.total - in_encoder.total, layers - spec.num_encoder_layers)
    gathers = (layout.zero >= 3) & (layout.shards > 1)
    # FSDP2's root, embedding and head, keeps its whole weights and gradients until backward ends.
    gathered = layout.reshard * 2 * per_layer + (1 - layout.reshard) * (elements.total - root.total) + root.total
    # A pipeline adds whole gradients up until the last micro-batch, where weights stay too.
    adds_up = (layout.pp > 1) * (1 - layout.reshard)
    reduced = adds_up * (elements.total - root.total) + (1 - adds_up) * per_layer + root.total
    gradients = elements.over(layout, 2) * precision.gradient_bytes
    in_layers = gradients - root.over(layout, 2) * precision.gradient_bytes
    return RankModel(
        elements=elements,
        weights=frozen + elements.over(layout, 3) * (precision.weight_bytes + precision.weight_copy_bytes),
        gradients=gradients,
        layer_gradients=in_layers // layers,
        embedding_gradients=embedding.over(layout, 2) * precision.gradient_bytes,
        accumulated_gradients=elements.over(layout, 2) * precision.accumulation_bytes,
        states=_states(spec, run, layout, is_last=is_last) + elements.over(layout, 1) * precision.master_bytes,
        gathered=gathers * gathered * precision.compute_bytes,
        reduced=gathers * reduced * (precision.gradient_bytes + adds_up * (4 - precision.gradient_bytes))
        + scatters_by_stage(run, layout) * ceil_div(elements.total, layout.virtual_stages) * precision.gradient_bytes,
        buckets=_buckets(run, layout, elements, precision.gradient_bytes),
        layers=layers,
    )


def _buckets(run: Run, layout: Layout, elements: Shard, gradient_bytes: int) -> Size:
    """Return the communication buffers of data parallelism.

    Without ZeRO they are those of DistributedDataParallel: all gradients once more, unless these are views of them
    (`gradient_as_bucket_view`). ZeRO-1 and 2 reduce through two buckets; ZeRO-3 has its gathered layers instead.
    """
    copies = 0 if layout.bucket_view else elements.total * gradient_bytes
    is_flat = (layout.zero >= 1) & (layout.zero < 3)
    return (layout.shards > 1) * ((layout.zero < 1) * copies + is_flat * 2 * BUCKETS.get(run.framework, BUCKET_BYTES))


def _states(spec: ModelSpec, run: Run, layout: Layout, *, is_last: bool) -> Size:
    """Return the bytes of the optimizer's states; the CPU's step counts are whole on every rank."""
    optimizer, tensors = run.optimizer, trained_tensors(spec, run.adapter)
    precision = trained_precision(run.precision, run.adapter)
    amounts = _on_stage(spec, tensors, lambda one: optimizer.tensor_bytes(one, precision), layout, is_last=is_last)
    of_extra = {"sgd": 0, "adamw": precision.adam_state_bytes}.get(optimizer.name, precision.state_bytes)
    states = _with_extra(spec, layout, amounts, of_extra).over(layout, 1)
    if run.backend == "cpu" and optimizer.counts_steps:
        states = states + STEP_BYTES * sum(_copies_on_stage(spec, one, layout, is_last=is_last) for one in tensors)
    return states


def _with_extra(spec: ModelSpec, layout: Layout, shard: Shard, amount: int) -> Shard:
    """Return a shard with the parameters beyond the listed shapes, each of which counts `amount`."""
    extra = ceil_div(spec.extra_parameters, layout.pp * layout.tp) * amount
    by_rows = shard.by_rows + ceil_div(extra, layout.shards)
    return Shard(dense=shard.dense + extra, experts=shard.experts, by_rows=by_rows)


def _numel(tensor: ParameterTensor) -> int:
    return tensor.numel


_ROOT = (Place.EMBEDDING, Place.HEAD)


def _at(tensors: list[ParameterTensor], *places: Place) -> list[ParameterTensor]:
    return [one for one in tensors if one.place in places]


def in_flight(run: Run, layout: Layout, *, is_last: bool) -> Size:
    """Return for how many micro-batches a stage holds activations under 1F1B."""
    return in_flight_microbatches(layout.pp, _stage_number(layout, is_last=is_last), run.accumulation)


def held_by_stage(num_bytes: Size, run: Run, layout: Layout, *, is_last: bool) -> Size:
    """Return what the layers of a stage hold at most, where one micro-batch leaves `num_bytes` in them."""
    plain = num_bytes * in_flight(run, layout, is_last=is_last)
    virtual, stage = layout.virtual_stages, _stage_number(layout, is_last=is_last)
    parts = interleaved_parts(layout.pp, stage, run.accumulation, virtual, layout.group)
    return (virtual == 1) * plain + (virtual > 1) * ceil_div(num_bytes * parts, virtual)


def _stage_number(layout: Layout, *, is_last: bool) -> Size:
    return layout.pp - 1 if is_last else layout.is_second + 0 * layout.pp


def context_bytes(run: Run, layout: Layout) -> Size:
    """Return what a GPU process holds beside tensors: context, workspace, communicators; nothing on the CPU."""
    if run.backend == "cpu":
        return 0 * layout.pp
    axes = (layout.dp, layout.tp, layout.pp, layout.cp, layout.ep)
    communicators = sum((axis > 1) * 1 for axis in axes)
    return run.context.predicted_bytes + LARGE_CUBLAS_BYTES + communicators * NCCL_BYTES


def _on_stage(
    spec: ModelSpec,
    tensors: list[ParameterTensor],
    amount: Callable[[ParameterTensor], int],
    layout: Layout,
    *,
    is_last: bool,
) -> Shard:
    """Return a sum over the tensors of a stage; `amount` says what one copy of a tensor counts.

    FSDP2 cuts each tensor along its first dimension and pads the parts to one size (`FSDPParam._init_sharded_param`),
    so that a tensor of fewer rows than ranks is not divided any further.
    """
    dense: Size = 0
    experts: Size = 0
    by_rows: Size = 0
    for one in tensors:
        here, rows = _copies_on_stage(spec, one, layout, is_last=is_last), one.shape[0]
        if one.division is Division.EXPERTS:
            size, ranks = ceil_div(amount(one), layout.tp * layout.ep), layout.shards // layout.ep
            experts = experts + here * size
            # Experts are cut along their own rows where there are more ranks than experts.
            rows *= one.shape[1]
        else:
            size = ceil_div(amount(one), layout.tp) if one.division is Division.SPLIT else amount(one)
            ranks = layout.shards
            dense = dense + here * size
        by_rows = by_rows + here * ceil_div(size * ceil_div(rows, ranks), rows)
    return Shard(dense=dense, experts=experts, by_rows=by_rows)


def _copies_on_stage(spec: ModelSpec, tensor: ParameterTensor, layout: Layout, *, is_last: bool) -> Size:
    """Return how many copies of a tensor the first or last stage holds."""
    if tensor.place is Place.HEAD:
        return 1 if is_last else (layout.pp == 1) * 1
    if tensor.place is Place.EMBEDDING:
        # A tied head of its own stage has a copy of the matrix.
        if layout.is_second:
            return 0
        has_copy = is_last and spec.tied and spec.has_head and tensor.name == "embedding"
        return 1 if not is_last or has_copy else (layout.pp == 1) * 1
    if tensor.copies == spec.num_layers:
        return layers_of_stage(spec, layout, is_last=is_last)
    return ceil_div(tensor.copies, layout.pp)
