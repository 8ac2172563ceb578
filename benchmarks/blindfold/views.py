"""What inference gets to see of a recording: all that is left without hooks, or less."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from benchmarks.blindfold.accelerator import DEVICE, as_on_accelerator
from benchmarks.blindfold.compare import Comparison, compare
from benchmarks.blindfold.strip import as_recorded, late, without_stacks
from memtrace.store.trace import RankTrace


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """One way of seeing a recording without its hooks."""

    name: str
    meaning: str
    strip: Callable[[RankTrace, str], RankTrace]
    """Takes away what the hooks knew, of a rank and a device."""
    on_accelerator: bool = False
    """Whether the recording is first translated to what an accelerator would have recorded."""

    def compare(self, rank: RankTrace, device: str = "cpu") -> Comparison:
        """Return how far inference is from the exact answer of a rank recorded on a device."""
        if self.on_accelerator:
            rank, device = as_on_accelerator(rank), DEVICE
        return compare(rank, self.strip(rank, device), device)


VIEWS = (
    View(
        name="as recorded",
        meaning="events, stacks and annotations of the whole run",
        strip=lambda rank, device: as_recorded(rank),
    ),
    View(
        name="accelerator",
        meaning="translated to an accelerator: addresses of the caching allocator, no stacks in backward",
        strip=lambda rank, device: as_recorded(rank),
        on_accelerator=True,
    ),
    View(
        name="accelerator, late",
        meaning="the same from the end of step 1 on: what lived then has no stack. Where gradients are never freed, "
        "only address order tells them from states: totals by category are right, which block is which may not be",
        strip=late,
        on_accelerator=True,
    ),
    View(name="late", meaning="as recorded, from the end of step 1 on", strip=late),
    View(
        name="no stacks",
        meaning="events and annotations only",
        strip=lambda rank, device: without_stacks(rank),
    ),
)
"""The first is what the targets are set for."""


def views_of(device: str) -> tuple[View, ...]:
    """Return the views of recordings of the CPU, or of CUDA, which need not be translated to an accelerator."""
    return tuple(view for view in VIEWS if device == "cpu" or not view.on_accelerator)
