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
    """forward, backward or optimizer."""
    where: str
    """What the program is doing then, in words."""
    peak_bytes: int
    """What the GPU holds then."""
    by_category: Mapping[str, int]
    """Bytes by category name; they add up to the peak."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """The memory of one GPU, from arithmetic alone."""

    model: str
    """What the model is called."""
    num_parameters: int
    """All parameters of the whole model."""
    active_parameters: int
    """Those that take part in the computation of one token."""
    world_size: int
    """GPUs that train it together."""
    settings: Mapping[str, Any]
    """How training is set and laid out, by option name."""
    phases: tuple[PhaseEstimate, ...]
    """Forward, backward and optimizer of the first step and of the steady state."""
    peak: PhaseEstimate
    """The largest of them."""
    low_bytes: int
    """Least that the peak is expected to be."""
    high_bytes: int
    """Range in which the peak is expected."""
    reserved_bytes: int | None
    """The peak with what the caching allocator reserves beyond it, by its model; `None` on the CPU, which has none."""
    capacity_bytes: int | None
    """Memory of the GPU; `None` where none was named."""
    fits: bool | None
    """`None` where the capacity lies in the range, or none was given."""
    assumptions: tuple[str, ...]
    """What was not known, and what stood in for it, in sentences."""
    layer_terms: Mapping[str, int]
    """Activations of one layer and micro-batch by name, before recomputation; `encoder, …` those of an encoder's."""
    gradient_bytes: int
    """All gradients of the rank; at the peak not all of them need be there."""
    state_bytes: int
    """All states of the optimizer on the rank, a master copy of the weights included."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparedCategory:
    """One category of an estimate beside a recording."""

    name: str
    """The category."""
    estimated_bytes: int
    """At the estimated peak."""
    recorded_bytes: int | None
    """At the recorded peak; `None` where nothing was recorded of it."""
    error_pct: float | None
    """Signed; negative is an under-estimate. `None` where nothing was recorded."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """An estimate beside a recording."""

    title: str
    """What is compared, in words."""
    step: int | None
    """Step of the recorded peak."""
    rows: tuple[ComparedCategory, ...]
    """A row a category, and their sum."""
    notes: tuple[str, ...]
    """What makes the two not quite the same, in sentences."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanRow:
    """One layout."""

    dp: int
    """Data-parallel ranks."""
    tp: int
    """Tensor-parallel ranks."""
    pp: int
    """Pipeline stages."""
    virtual_stages: int
    """Stages of the model that a rank of the pipeline has, in an interleaved schedule."""
    cp: int
    """Context-parallel ranks."""
    ep: int
    """Expert-parallel ranks."""
    zero: int
    """Stage of ZeRO, 0 to 3: what data-parallel ranks share."""
    recompute: str
    """Which activations are computed again in backward: none, selective or full."""
    micro_batch: int
    """Sequences of one forward on one rank."""
    accumulation: int
    """Micro-batches of a step."""
    peak_bytes: int
    """What the fullest rank holds."""
    step_time_ns: int
    """Expected time of a step."""
    compute_ns: int
    """Of it, what is computed."""
    communication_ns: int
    """What is not hidden behind computation."""
    bubble_ns: int
    """Of it, what stages of the pipeline wait for each other."""
    tokens_per_second_per_gpu: float
    """Tokens of the global batch over the step's time and the GPUs."""
    mfu: float
    """Model FLOPs utilisation: operations the model needs, over what the GPU could do in the time."""
    fits: bool
    """Whether the fullest rank fits its GPU."""
    verdict: str
    """fits, close or does not fit: by as much as published runs were off."""
    reasons: tuple[str, ...]
    """Why it stands where it stands, in words."""
    settings: Mapping[str, str]
    """What to type, by launcher."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """What measured runs say of a cluster."""

    time_factor: float
    """Measured over predicted time of a step."""
    memory_factor: float
    """Measured over predicted peak; 1 where none was measured."""
    runs: int
    """Runs that were measured."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluatedLayout:
    """What one given layout needs and takes."""

    gpus: int
    """GPUs of the layout."""
    step_seconds: float
    """Expected time of a step."""
    time_seconds: Mapping[str, float]
    """The terms of the step by name; they add up to it."""
    tokens_per_second_per_gpu: float
    """Tokens of the global batch over the step's time and the GPUs."""
    mfu: float
    """Model FLOPs utilisation."""
    peak_bytes: int
    """Largest allocation of the fullest pipeline stage, as `torch.cuda.max_memory_allocated` tells it."""
    reserved_bytes: int
    """The same with what the allocator may reserve beyond it, as `torch.cuda.max_memory_reserved` tells it."""
    process_bytes: int
    """The same with context and communicators, as `nvidia-smi` tells it: what must fit."""
    capacity_bytes: int
    """Memory of the GPU."""
    fits: str
    """yes, close or no: by the range of the process's bytes."""
    tokens_per_second_per_gpu_range: tuple[float, float]
    """Between which nine of ten published runs of the framework were, measured by what was predicted of them."""
    process_bytes_range: tuple[int, int]
    """The same of memory."""
    beyond: tuple[str, ...]
    """In which respects no published run is like this layout, in words."""
    stages: Mapping[str, Mapping[str, int]]
    """Bytes by category at the fullest moment of the first and of the last stage."""
    assumed: tuple[str, ...]
    """What the row left out and what stood in for it, in words."""
    measured_tokens_per_second_per_gpu: float | None = None
    """What the row says was measured; `None` where it says nothing."""
    measured_peak_bytes: int | None = None
    """The same of the largest allocation."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """How well predictions agree with what was measured."""

    runs: int
    """Layouts of which it was measured."""
    median_error: float
    """Median of the errors without their signs; an error is predicted over measured, less one."""
    worst_error: float
    """The largest error, with its sign."""
    rank_correlation: float | None
    """Spearman's; `None` where all are predicted, or measured, to be the same."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PlanCloud:
    """Columns of many layouts, for a chart."""

    columns: Mapping[str, tuple[Any, ...]]
    """Values by name, one a layout; all of the same length."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Plan:
    """All layouts of a model on some GPUs, ranked."""

    model: str
    """What the model is called."""
    num_parameters: int
    """All parameters of the model."""
    gpus: int
    """How many GPUs there are."""
    gpu: str
    """What they are called."""
    capacity_bytes: int
    """Memory of one of them."""
    global_tokens: int
    """Tokens of a step."""
    sequence: int
    """Tokens of a sequence."""
    num_layouts: int
    """Layouts that were tried."""
    num_fitting: int
    """Of these, those that fit."""
    rows: tuple[PlanRow, ...]
    """Best first; those that fit before those that do not."""
    pareto: tuple[PlanRow, ...]
    """Layouts that nothing beats in both memory and throughput, least memory first."""
    cloud: PlanCloud
    """All of them, for a chart."""
    assumptions: tuple[str, ...]
    """What was not known, and what stood in for it, in sentences."""
