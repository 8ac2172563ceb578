"""Memory and time of many layouts at once: what a plan ranks, and what an evaluation of given layouts tells.

In: `ModelSpec`, `Run` and `Layout` of arrays, a `Gpu`. Out: `Costs`, a number a layout. The formulas are those that
`estimate` evaluates once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from memtrace.forecast.gpus import Gpu
from memtrace.forecast.memory.formulas import Size
from memtrace.forecast.memory.layout import Layout, Run
from memtrace.forecast.memory.phases import ACTIVATION, TEMPORARY, Moment, largest, moments
from memtrace.forecast.memory.stages import counts_ends, has_middle
from memtrace.forecast.model.spec import ModelSpec
from memtrace.forecast.step_time.speed import Speed
from memtrace.forecast.step_time.step import step_time

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]

RESERVE_PCT = 8
"""By how much the allocator may reserve more than is allocated, of activations and temporaries, which come and go.

With expandable segments, as large runs use them; without, the model of the allocator says 5 to 20 % of the peak.
"""
RECURRING_PCT = 3
"""The same of micro-batches in flight beyond the first: what one gives back the next takes, tensor by tensor.

The model of the allocator, fed with pipelines of 8B to 405B (4 to 128 parts in flight), says 0 to 3 % with expandable
segments and 1 to 5 % without.
"""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class StageMemory:
    """The fullest moment of one pipeline stage."""

    by_category: Mapping[str, IntArray]
    """Bytes, a number a layout."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Costs:
    """Memory and time, a number a layout."""

    peak: IntArray
    """Bytes of the steady-state peak of the fullest pipeline stage."""
    needed: IntArray
    """The same with what the allocator may reserve beyond it."""
    seconds: FloatArray
    time: Mapping[str, FloatArray]
    """The terms of the seconds; they add up to them."""
    throughput: FloatArray
    """Tokens a second and GPU."""
    mfu: FloatArray


_NUMBERS = ("peak", "needed", "seconds", "throughput", "mfu")


def costs(spec: ModelSpec, run: Run, layout: Layout, gpu: Gpu, speed: Speed, *, memory_factor: float = 1.0) -> Costs:
    """Return memory and time of layouts whose sizes are arrays of one length; measured runs may scale the memory."""
    points = [one for stage in _stages(spec, run, layout).values() for one in stage]
    time = step_time(spec, run, layout, gpu, speed)
    like = np.zeros(np.shape(layout.world_size))
    return Costs(
        peak=_scaled(_within(gpu, points, lambda one: one.num_bytes), memory_factor),
        needed=_scaled(_within(gpu, points, needed_bytes), memory_factor),
        seconds=time.total + like,
        time={name: term + like for name, term in time.terms.items()},
        throughput=time.tokens_per_second_per_gpu + like,
        mfu=time.mfu + like,
    )


def _within(gpu: Gpu, points: Sequence[Moment], num_bytes: Callable[[Moment], Size]) -> Size:
    """Return the bytes of the fullest moment; what yields does so before the GPU is full."""
    held = largest(num_bytes(one) for one in points)
    least = largest(num_bytes(one) - one.yielding for one in points)
    return np.maximum(least, np.minimum(held, gpu.memory_bytes))


def stage_memory(spec: ModelSpec, run: Run, layout: Layout) -> dict[str, StageMemory]:
    """Return the fullest moment of the first stage and of the last, and of the second where it has more layers.

    Of one stage alone both are the same.
    """
    like = np.zeros(np.shape(layout.world_size), np.int64)
    return {name: _fullest(stage, like) for name, stage in _stages(spec, run, layout).items()}


def _stages(spec: ModelSpec, run: Run, layout: Layout) -> dict[str, list[Moment]]:
    found = {"first": layout, SECOND: replace(layout, is_second=True), "last": layout}
    if not np.any(has_fuller_second(spec, layout)):
        del found[SECOND]
    return {name: moments(spec, run, one, is_last=name == "last", steady=True) for name, one in found.items()}


SECOND = "second"
"""The stage that may be fuller than the first, where that has the embedding in place of a layer."""


def has_fuller_second(spec: ModelSpec, layout: Layout) -> Size:
    """Return where the second stage has more layers than the first: 1 or 0."""
    return counts_ends(spec, layout) * has_middle(layout)


def joined(parts: Sequence[Costs]) -> Costs:
    """Return the costs of layouts that were evaluated a part at a time, one part after the other."""
    numbers = {name: np.concatenate([getattr(one, name) for one in parts]) for name in _NUMBERS}
    time = {name: np.concatenate([one.time[name] for one in parts]) for name in parts[0].time}
    return Costs(**numbers, time=time)


def needed_bytes(moment: Moment) -> Size:
    """Return the bytes of a moment with what the allocator may reserve beyond them."""
    moving = moment.by_category[ACTIVATION] + moment.by_category.get(TEMPORARY, 0) - moment.recurring
    return moment.num_bytes + (RESERVE_PCT * moving + RECURRING_PCT * moment.recurring) // 100


def _scaled(values: Size, factor: float) -> IntArray:
    """Return bytes, exactly as they are where nothing scales them."""
    exact = np.asarray(values, np.int64)
    return exact if factor == 1 else np.rint(exact * factor).astype(np.int64)


def _fullest(stage: list[Moment], like: IntArray) -> StageMemory:
    """Return the largest moment of each layout, category by category."""
    chosen = np.stack([one.num_bytes + like for one in stage]).argmax(axis=0)
    rows = np.arange(len(like))
    names = dict.fromkeys(name for one in stage for name in one.by_category)
    columns = {name: np.stack([one.by_category.get(name, 0) + like for one in stage]) for name in names}
    return StageMemory(by_category={name: column[chosen, rows] for name, column in columns.items()})
