"""How many layers the first and the last stage of a pipeline have.

In: `ModelSpec`, `Layout`. Out: numbers of layers. Sizes may be arrays, one number a layout.
"""

from __future__ import annotations

import numpy as np

from memtrace.forecast.memory.formulas import Size
from memtrace.forecast.memory.layout import Layout, ceil_div
from memtrace.forecast.model.spec import ModelSpec


def layers_of_stage(spec: ModelSpec, layout: Layout, *, is_last: bool = False) -> Size:
    """Return the layers of the first stage, which is the fullest, or of the last.

    Equally many, and what does not divide is missing at the end, as in Llama 3 405B (126 layers: 15 stages of 8, and 6
    with the head). Where the head counts as layers do, a stage ends with the layer that passes its part of the cost, so
    that the first has one layer more than the mean (nanotron, `build_and_set_rank`).

    >>> from memtrace.forecast.model.presets import preset
    >>> [int(layers_of_stage(preset("llama-3.1-405b"), Layout(pp=16), is_last=last)) for last in (False, True)]
    [8, 6]
    >>> balanced = Layout(pp=16, head_layers=2.2)
    >>> [int(layers_of_stage(preset("llama-3-8b"), balanced, is_last=last)) for last in (False, True)]
    [3, 0]
    """
    even = ceil_div(spec.num_layers, layout.pp)
    mean = (spec.num_layers + layout.head_layers) / layout.pp
    if is_last:
        before = np.minimum(spec.num_layers, np.floor(mean * (layout.pp - 1)).astype(np.int64) + 1) * (layout.pp > 1)
        left = spec.num_layers - even * (layout.pp - 1)
        return np.where(layout.head_layers > 0, spec.num_layers - before, np.maximum(left, 0))
    fullest = np.minimum(spec.num_layers, np.floor(mean).astype(np.int64) + 1)
    return np.where((layout.head_layers > 0) & (layout.pp > 1), fullest, even)


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
