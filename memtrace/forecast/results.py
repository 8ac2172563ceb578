"""What forecasts return and reports draw: frozen dataclasses of plain values. Bytes are ints, times ns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class PhaseEstimate:
    """The fullest moment of one phase."""

    step: str
    """first or steady: the states of the optimizer exist from the end of the first step on."""
    phase: str
    where: str
    """What the program is doing then, in words."""
    peak_bytes: int
    by_category: Mapping[str, int]
    """Bytes by category name; they add up to the peak."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """The memory of one GPU, from arithmetic alone."""

    model: str
    num_parameters: int
    active_parameters: int
    """Those that take part in the computation of one token."""
    world_size: int
    settings: Mapping[str, Any]
    """How training is set and laid out, by option name."""
    phases: tuple[PhaseEstimate, ...]
    """Forward, backward and optimizer of the first step and of the steady state."""
    peak: PhaseEstimate
    """The largest of them."""
    low_bytes: int
    high_bytes: int
    """Range in which the peak is expected."""
    reserved_bytes: int | None
    """The peak with what the caching allocator reserves beyond it, by its model; `None` on the CPU, which has none."""
    capacity_bytes: int | None
    fits: bool | None
    """`None` where the capacity lies in the range, or none was given."""
    assumptions: tuple[str, ...]
    """What was not known, and what stood in for it, in sentences."""
    layer_terms: Mapping[str, int]
    """Activations of one layer and micro-batch by name, before recomputation."""
    gradient_bytes: int
    """All gradients of the rank; at the peak not all of them need be there."""
    state_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparedCategory:
    """One category of an estimate beside a recording."""

    name: str
    estimated_bytes: int
    recorded_bytes: int | None
    error_pct: float | None
    """Signed; negative is an under-estimate. `None` where nothing was recorded."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """An estimate beside a recording."""

    title: str
    step: int | None
    """Step of the recorded peak."""
    rows: tuple[ComparedCategory, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanRow:
    """One layout."""

    dp: int
    tp: int
    pp: int
    cp: int
    ep: int
    zero: int
    recompute: str
    micro_batch: int
    accumulation: int
    peak_bytes: int
    step_time_ns: int
    compute_ns: int
    communication_ns: int
    """What is not hidden behind computation."""
    bubble_ns: int
    tokens_per_second_per_gpu: float
    mfu: float
    """Model FLOPs utilisation: operations the model needs, over what the GPU could do in the time."""
    fits: bool
    reasons: tuple[str, ...]
    """Why it stands where it stands, in words."""
    settings: Mapping[str, str]
    """What to type, by launcher."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluatedLayout:
    """What one given layout needs and takes."""

    gpus: int
    step_seconds: float
    time_seconds: Mapping[str, float]
    """The terms of the step by name; they add up to it."""
    tokens_per_second_per_gpu: float
    mfu: float
    """Model FLOPs utilisation."""
    peak_bytes: int
    """Largest allocation of the fullest pipeline stage, as `torch.cuda.max_memory_allocated` tells it."""
    reserved_bytes: int
    """The same with what the allocator may reserve beyond it, as `torch.cuda.max_memory_reserved` tells it."""
    process_bytes: int
    """The same with context and communicators, as `nvidia-smi` tells it: what must fit."""
    capacity_bytes: int
    fits: str
    """yes, close or no."""
    stages: Mapping[str, Mapping[str, int]]
    """Bytes by category at the fullest moment of the first and of the last stage."""
    assumed: tuple[str, ...]
    """What the row left out and what stood in for it, in words."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PlanCloud:
    """Columns of many layouts, for a chart."""

    columns: Mapping[str, tuple[Any, ...]]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Plan:
    """All layouts of a model on some GPUs, ranked."""

    model: str
    num_parameters: int
    gpus: int
    gpu: str
    capacity_bytes: int
    global_tokens: int
    sequence: int
    num_layouts: int
    num_fitting: int
    rows: tuple[PlanRow, ...]
    """Best first; those that fit before those that do not."""
    pareto: tuple[PlanRow, ...]
    """Layouts that nothing beats in both memory and throughput, least memory first."""
    cloud: PlanCloud
    assumptions: tuple[str, ...]
