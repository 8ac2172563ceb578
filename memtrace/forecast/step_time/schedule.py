"""How layers are spread over pipeline stages, and which stage the others wait for.

In: `ModelSpec`, `Run`, `Layout`, seconds of a layer and of the head. Out: `StageLayers` of the slowest stage.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

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


def filling_share(layout: Layout, *, computing: Size, repeated: Size, whole: Size) -> Size:
    """Return which part of a micro-batch's time a rank waits for each stage before or behind it.

    Forward, gradient of the input and gradient of the weights take a third of `computing` each; `repeated` is what is
    recomputed, `whole` the micro-batch with what it sends. 1F1B waits for all of it, divided by the stages of a rank;
    where these run fewer micro-batches in a row than there are ranks, a rank also waits for the first of them to come
    round, before each of its stages but the first.
    ZB-H1 waits for forward and input gradient, less one weight gradient, which it computes meanwhile; ZB-V for nothing
    but what is no computation (Qi et al., table 1 and section 6).

    >>> [round(float(filling_share(Layout(pp=4, schedule=name), computing=3.0, repeated=0.0, whole=3.3)), 3)
    ...  for name in ("1f1b", "zb-h1", "zbv")]
    [1.0, 0.394, 0.091]
    >>> short = Layout(pp=4, virtual_stages=2, group=2)
    >>> round(3 * float(filling_share(short, computing=3.0, repeated=0.0, whole=3.3)), 3)  # (3 + 1·2) / 2 micro-batches
    2.5
    """
    if layout.schedule == "1f1b":
        missing = (layout.group > 0) * np.maximum(layout.pp - layout.group, 0)
        waits = (layout.virtual_stages - 1) * missing / np.maximum(layout.pp - 1, 1)
        return (1 + waits) / layout.virtual_stages
    filled = 2 * computing / 3 if layout.schedule == "zb-h1" else computing + repeated
    return 1 - filled / whole


def stage_layers(spec: ModelSpec, run: Run, layout: Layout, parts: Kernels) -> StageLayers:
    """Return what the slowest stage has: the fullest, or the last, which computes the head too.

    >>> from memtrace.forecast.model.presets import preset
    >>> model = preset("llama-3.1-405b")
    >>> parts = Kernels(layer=1.0, repeated=0.0, head=1.5)
    >>> found = stage_layers(model, Run(), Layout(pp=16), parts)  # 126 layers: 8 or 7 a stage
    >>> int(found.layers), int(found.heads), round(float(found.mean_share), 4)
    (7, 1, 0.9375)
    """
    # Of the stages before the last, the fullest: the second where the embedding counts as a layer of the first.
    first = layers_of_stage(spec, replace(layout, is_second=True))
    last = layers_of_stage(spec, layout, is_last=True)
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
