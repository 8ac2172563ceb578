"""How many layers the first and the last stage of a pipeline have.

In: `ModelSpec`, `Layout`. Out: numbers of layers. Sizes may be arrays, one number a layout.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from memtrace.forecast.memory.formulas import Size
from memtrace.forecast.memory.layout import Layout, ceil_div
from memtrace.forecast.model.spec import ModelSpec


def layers_of_stage(spec: ModelSpec, layout: Layout, *, is_last: bool = False) -> Size:
    """Return the layers of the first stage, which is the fullest, or of the last.

    Equally many, and where they do not divide the last has fewer; or embedding and head count as a layer each, as in
    Llama 3 405B (126 layers on 16 stages: 7 of the first and last, 8 of all others). Where the head counts by its
    cost, a stage ends with the layer that passes its part of that, so that the first has one layer more than the mean
    (nanotron, `build_and_set_rank`).

    >>> from memtrace.forecast.model.presets import preset
    >>> [layers_of_stage(preset("llama-3.1-405b"), Layout(pp=16), is_last=is_last) for is_last in (False, True)]
    [8, 7]
    >>> ends = Layout(pp=16, ends_count=True)
    >>> [int(layers_of_stage(preset("llama-3.1-405b"), replace(ends, is_second=two))) for two in (False, True)]
    [7, 8]
    >>> balanced = Layout(pp=16, head_layers=2.2)
    >>> [int(layers_of_stage(preset("llama-3-8b"), balanced, is_last=is_last)) for is_last in (False, True)]
    [3, 0]
    """
    if layout.head_layers and not (isinstance(layout.pp, int) and layout.pp == 1):
        return _balanced(spec, layout, is_last=is_last)
    plain = spec.num_layers // layout.pp if is_last else ceil_div(spec.num_layers, layout.pp)
    if not layout.ends_count:
        return plain
    even = (spec.num_layers + ENDS) // layout.pp - (1 - layout.is_second * has_middle(layout))
    return plain + counts_ends(spec, layout) * (even - plain)


ENDS = 2
"""Layers that embedding and head count as, one each."""


def counts_ends(spec: ModelSpec, layout: Layout) -> Size:
    """Return where embedding and head count as layers: where these alone do not divide among all stages; 1 or 0.

    Megatron-LM refuses such layers without `--account-for-embedding-in-pipeline-split` and `-loss-`; BLOOM (70 layers
    on 12 stages, `type:transformer|embedding`) and Llama 3 405B (arXiv 2407.21783, section 3.3.2) did the same.

    >>> from memtrace.forecast.model.presets import preset
    >>> [int(counts_ends(preset("llama-3.1-405b"), Layout(pp=pp, ends_count=True))) for pp in (7, 16, 17)]
    [0, 1, 0]
    """
    stages = layout.pp * layout.virtual_stages
    uneven = (spec.num_layers % stages != 0) & ((spec.num_layers + ENDS) % stages == 0)
    return layout.ends_count * (layout.pp > 1) * uneven


def has_middle(layout: Layout) -> Size:
    """Return where a pipeline has stages between the first and the last: 1 or 0."""
    return (layout.pp > 2) * 1


def _balanced(spec: ModelSpec, layout: Layout, *, is_last: bool) -> Size:
    number, several = spec.num_layers, layout.pp > 1
    mean = (number + layout.head_layers) / layout.pp
    if is_last:
        before = np.minimum(number, np.floor(mean * (layout.pp - 1)).astype(np.int64) + 1)
        return number - several * before
    return np.where(several, np.minimum(number, np.floor(mean).astype(np.int64) + 1), number)


def head_layers(spec: ModelSpec) -> float:
    """Return how many layers the head counts as where stages are balanced by the elements of their matrices.

    Source: nanotron, `LlamaForTraining.get_block_compute_costs`: heads and MLP of a layer, vocabulary times width.

    >>> from memtrace.forecast.model.presets import preset
    >>> round(head_layers(preset("llama-2-7b")), 3)
    0.648
    """
    matrices = 3 if spec.gated else 2
    layer = spec.hidden * (4 * spec.query_width + matrices * (spec.ffn or spec.expert_ffn))
    return spec.vocabulary * spec.hidden / layer


def in_framework(layout: Layout, spec: ModelSpec, framework: str) -> Layout:
    """Return a layout as a framework runs it, apart from what the layout says itself.

    nanotron balances stages by cost, the others by layers; Megatron-DeepSpeed branched off before Megatron-LM had
    sequence parallelism; torchtitan keeps weights gathered after forward in a pipeline (`fsdp_reshard_after_forward`
    default).
    """
    if framework == "nanotron":
        return replace(layout, head_layers=head_layers(spec))
    layout = replace(layout, ends_count=True)
    if framework == "deepspeed":
        return replace(layout, sequence_parallel=False)
    if framework == "torchtitan":
        return replace(layout, reshard=(layout.pp == 1) * 1)
    return layout
