"""What the diagnoses return: leaks and fragmentation. Frozen dataclasses; bytes are ints, what is not known is `None`.

`results` hands them on, so that there is one place to import result types from.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Leak:
    """Bytes that pile up from step to step."""

    bytes_per_step: int
    """By how much they grow in a step, on average over `steps`."""
    allocations_per_step: int
    """Allocations that stay of each step, rounded up."""
    steps: tuple[int, ...]
    """The steps whose growth was looked at."""
    phase: str | None
    """Phase in which they are allocated; `None` outside any."""
    category: str
    """The category that most of their bytes are of."""
    num_modules: int
    """Modules in whose forward they are allocated; 0 where modules are not known."""
    cause: str
    """The usual cause, a guess: graph, outputs, gradients or container."""
    live_bytes: int
    """What has piled up since step 1 at the end of the last recorded step, at this rate."""
    steps_until_full: int | None
    """More steps as the last one that the device has room for; `None` if its capacity is not known."""
    where: Mapping[str, Any] | None
    """file, line, function, module of the line under which they are allocated; `None` without stacks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Resident:
    """Bytes that a step left behind, and that the next one therefore has on top of its own."""

    what: str
    """A category, or `outputs`: what the model returned, and what was computed from it."""
    num_bytes: int
    where: Mapping[str, Any] | None
    """file, line, function and module that made most of them; `None` where that was not recorded."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepNeeds:
    """What a step needed, what it left behind, and what the next one needs for it."""

    step: int
    peak_bytes: int
    """Its own peak."""
    phase: str | None
    """Phase of that peak."""
    resident: tuple[Resident, ...]
    """What it made that is still live when the next forward begins, the largest first."""
    next_bytes: int
    """The peak of the next step if it does the same again: with what is resident already there from its start."""
    limited_by: str | None
    """Phase in which the next step needs that much."""
