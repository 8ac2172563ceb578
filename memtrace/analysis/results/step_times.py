"""What analysis says about the time of steps as the program's own clock has it, and about throughput. Times in ns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class StepTime:
    """The time of one step on the CPU, and in which phases the program spent it."""

    step: int
    """Its number."""
    start_ns: int
    """End of the step before."""
    end_ns: int
    """End of its optimizer step."""
    recording_ns: int | None
    """Time that memtrace itself took in it; `None` in recordings of older versions."""
    phases_ns: Mapping[str, int] | None
    """Time by phase without what memtrace took, the innermost counting: forward, backward, recompute, optimizer, data;
    and other, which is the rest of the step. `None` where phases of the step were not recorded."""
    tokens: int | None
    """Tokens that went into the model; `None` where its input is no batch of token ids."""
    samples: int | None
    """Rows of the batches that went into it; `None` where no input was recorded."""

    @property
    def step_ns(self) -> int:
        """Length of the step without what memtrace took."""
        return max(self.end_ns - self.start_ns - (self.recording_ns or 0), 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFlops:
    """Floating point operations that a step needs by arithmetic, whatever is recomputed, and what share of the peak it
    reaches."""

    per_step: int
    """Operations a step."""
    matmul_parameters: int
    """Parameters that every token is multiplied with."""
    attention_per_step: int | None
    """Of the operations, those of attention scores; `None` where its kernels were not recorded: not counted then."""
    peak_flops: int
    """Dense floating point operations a second that the device's data sheet promises in this precision."""
    device: str
    """The device that figure is of."""
    precision: str
    """The precision that figure is of."""
    utilization: float
    """Operations of the step over what the device could do in its time."""
    assumptions: tuple[str, ...]
    """What was taken for granted, in sentences."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Throughput:
    """How fast one rank trains."""

    step_ns: int
    """Median length of the steps that count."""
    num_steps: int
    """How many they are."""
    of_recorded: bool
    """Whether they are steps that the trace holds in full, slowed down by recording; else they were recorded without
    stacks, and left the rolling window, or not at all."""
    tokens_per_step: int | None
    """Tokens a step; `None` where not known."""
    samples_per_step: int | None
    """Samples a step; `None` where not known."""
    tokens_per_second: float | None
    """Tokens a second; `None` where not known."""
    samples_per_second: float | None
    """Samples a second; `None` where not known."""
    flops: ModelFlops | None
    """`None` where tokens, parameters or the device's peak are not known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepTimes:
    """Steps of one rank by the clock."""

    steps: tuple[StepTime, ...]
    """Every step of training that has an end."""
    throughput: Throughput | None
    """`None` where there is no step to tell it from."""
