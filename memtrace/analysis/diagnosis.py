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
