"""What `memtrace predict` finds: frozen dataclasses of plain values. Bytes are ints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from memtrace.forecast.gpus import Gpu
from memtrace.schema.predicted import META


@dataclass(frozen=True, slots=True, kw_only=True)
class Engine:
    """What stood for the GPU."""

    name: str
    """driverless (torch's own CUDA code) or meta (tensors without data)."""
    why: str
    """Why that one."""


BY_META = Engine(name=META, why="it runs everywhere")
"""The engine of what is predicted without a choice."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Range:
    """A predicted number of bytes and how far off it may be."""

    low_bytes: int
    """Least that it may turn out to be."""
    predicted_bytes: int
    """What is predicted."""
    high_bytes: int
    """Most that it may turn out to be."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Doubt:
    """One reason for which a prediction may be off."""

    slug: str
    """Its short name in docs/messages.md."""
    message: str
    """A sentence."""
    less_bytes: int | None
    """The run may need this much less; `None` where that is not known, and so not in the range."""
    more_bytes: int | None
    """The run may need this much more; `None` where that is not known, and so not in the range."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """How far a prediction may be off, and why, on a device without end."""

    allocated: Range
    """Largest allocated bytes."""
    reserved: Range
    """Largest reserved bytes."""
    context: Range
    """What a process holds beside torch's allocator."""
    device: Range
    """Reserved bytes and context together: what the GPU must have."""
    doubts: tuple[Doubt, ...]
    """What makes the range."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FailedRequest:
    """The request that finds no memory."""

    time_ns: int
    """When it was made, by the clock of the prediction."""
    size_bytes: int
    """What was asked for."""
    allocated_bytes: int
    """Allocated at that moment."""
    reserved_bytes: int
    """Reserved at that moment."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuVerdict:
    """Whether a run fits on a GPU."""

    gpu: Gpu
    """The GPU that is judged."""
    ran_as: Gpu
    """The GPU that the program was told of: one of the same compute capability."""
    capacity_bytes: int
    """Memory that torch can take: all but the context."""
    fits: bool
    """Whether no request fails."""
    is_close: bool
    """Whether the memory of the GPU lies within the range, so that it may turn out the other way."""
    peak_allocated_bytes: int
    """Of the whole run if it fits, else what it would need on a device without end."""
    max_reserved_bytes: int
    """The same of reserved bytes."""
    context_bytes: int
    """What the process holds beside torch's allocator."""
    headroom_bytes: int
    """Capacity less reserved bytes; below zero it is what is missing."""
    failed: FailedRequest | None
    """The first request that finds no memory; `None` if the run fits."""
    failed_step: int | None
    """Step in which the request failed."""
    interval: Interval
    """How far the figures may be off."""
    num_retries: int = 0
    """How often the allocator gave cached memory back to make room; the run fits only by that."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RankVerdict:
    """What is said of one of several ranks."""

    rank: int
    """Its number."""
    trace_path: str
    """The trace that was written."""
    verdict: GpuVerdict
    """Of the GPU that the trace is of."""


def fullest_of(ranks: Sequence[RankVerdict]) -> RankVerdict:
    """Return the rank that needs most; of equal ones the first."""
    return max(ranks, key=lambda one: (one.verdict.max_reserved_bytes, one.verdict.peak_allocated_bytes, -one.rank))


@dataclass(frozen=True, slots=True, kw_only=True)
class StepPeak:
    """The largest allocated bytes of the first step, or of those after it."""

    step: int | None
    """Step in which it was."""
    phase: str | None
    """Phase in which it was."""
    allocated_bytes: int
    """The peak itself."""
    reserved_bytes: int | None
    """Reserved bytes at that moment."""
    by_category: Mapping[str, int]
    """Requested bytes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConvolutionLayer:
    """What cuDNN may take for one convolution: from nothing to its unfolded input, while a pass through it runs."""

    module: str | None
    """The module that it is, or that asks for it."""
    file: str | None
    """File of the program's line that asks for it."""
    line: int | None
    """That line."""
    workspace_bytes: int
    """The most that it takes by its shapes."""
    more_bytes: int
    """How much higher the peak would be if it took that; 0 where less is held while it runs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """Everything that is said of a predicted run."""

    command: tuple[str, ...]
    """What was run."""
    trace_path: str
    """The trace that was written."""
    torch_version: str | None
    """The one whose operators ran."""
    num_steps: int
    """Steps that the run was given; the last may not have ended."""
    world_size: int
    """Ranks that the program was told of."""
    rank: int
    """The one that it ran as; of several the fullest."""
    ranks: tuple[RankVerdict, ...]
    """Each of several ranks, in order; empty where one was asked for."""
    engine: Engine
    """What stood for the GPU."""
    chosen: GpuVerdict
    """Of the GPU that the trace is of."""
    others: tuple[GpuVerdict, ...]
    """Of each GPU that was asked about by `--gpus`, the smallest first; empty where none was."""
    refused: tuple[tuple[str, str], ...]
    """Name of each GPU that the program cannot be predicted on, and why: it may itself refuse that GPU."""
    first_step: StepPeak | None
    """The peak of the first step; `None` where none ended."""
    steady_state: StepPeak | None
    """`None` where no second step was run."""
    convolutions: tuple[ConvolutionLayer, ...]
    """The convolutions, first those that could raise the peak most."""
    warnings: tuple[tuple[str, str], ...]
    """Slug and sentence of everything that was assumed or not seen."""
