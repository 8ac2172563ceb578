"""How layers are spread over pipeline stages, and which stage the others wait for.

In: `ModelSpec`, `Run`, `Layout`, seconds of a layer and of the head. Out: `StageLayers` of the slowest stage.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from memtrace.forecast.memory.formulas import Size
from memtrace.forecast.memory.layout import Layout, Run
from memtrace.forecast.memory.stages import layers_of_stage
from memtrace.forecast.model.spec import ModelSpec
from memtrace.forecast.step_time.computation import Kernels


@dataclass(frozen=True, slots=True, kw_only=True)
class StageLayers:
    """What the slowest stage has."""

    layers: Size
    heads: Size
    """1 where it computes head and loss."""
    mean_share: Size
    """Time of a stage in the mean, over that of the slowest."""


def stage_layers(spec: ModelSpec, run: Run, layout: Layout, parts: Kernels) -> StageLayers:
    """Return what the slowest stage has: the fullest, or the last, which computes the head too.

    >>> from memtrace.forecast.model.presets import preset
    >>> model = preset("llama-3.1-405b")
    >>> parts = Kernels(layer=1.0, repeated=0.0, head=1.5)
    >>> found = stage_layers(model, Run(), Layout(pp=16), parts)  # 126 layers: 8 or 7 a stage
    >>> int(found.layers), int(found.heads), round(float(found.mean_share), 4)
    (7, 1, 0.9375)
    """
    first, last = (layers_of_stage(spec, layout, is_last=is_last) for is_last in (False, True))
    layer = parts.layer + parts.repeated
    ends = last * layer + parts.head
    is_last = (ends >= first * layer) | (layout.pp == 1)
    slowest = np.where(is_last, ends, first * layer)
    everything = spec.num_layers * layer + parts.head
    return StageLayers(
        layers=np.where(is_last, last, first),
        heads=is_last * 1,
        mean_share=np.minimum(1.0, everything / layout.pp / slowest),
    )
