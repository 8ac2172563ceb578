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

    Equally many, and where they do not divide the last has fewer, as in Llama 3 405B (126 layers on 16 stages: the last
    has 7). Where the head counts as layers do, a stage ends with the layer that passes its part of the
    cost, so that the first has one layer more than the mean (nanotron, `build_and_set_rank`).

    >>> from memtrace.forecast.model.presets import preset
    >>> [layers_of_stage(preset("llama-3.1-405b"), Layout(pp=16), is_last=is_last) for is_last in (False, True)]
    [8, 7]
    >>> balanced = Layout(pp=16, head_layers=2.2)
    >>> [int(layers_of_stage(preset("llama-3-8b"), balanced, is_last=is_last)) for is_last in (False, True)]
    [3, 0]
    """
    if layout.head_layers and not (isinstance(layout.pp, int) and layout.pp == 1):
        return _balanced(spec, layout, is_last=is_last)
    return spec.num_layers // layout.pp if is_last else ceil_div(spec.num_layers, layout.pp)


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

    nanotron balances stages by cost; Megatron-DeepSpeed branched off before Megatron-LM had sequence parallelism;
    torchtitan keeps weights gathered after forward in a pipeline (`fsdp_reshard_after_forward` default).
    """
    if framework == "nanotron":
        return replace(layout, head_layers=head_layers(spec))
    if framework == "deepspeed":
        return replace(layout, sequence_parallel=False)
    if framework == "torchtitan":
        return replace(layout, reshard=(layout.pp == 1) * 1)
    return layout
