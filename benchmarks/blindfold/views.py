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
    strip: Callable[[RankTrace], RankTrace]
    """Takes away what the hooks knew."""
    on_accelerator: bool = False
    """Whether the recording is first translated to what an accelerator would have recorded."""

    def compare(self, rank: RankTrace) -> Comparison:
        """Return how far inference is from the exact answer of a rank recorded on the CPU."""
        rank = as_on_accelerator(rank) if self.on_accelerator else rank
        return compare(rank, self.strip(rank), DEVICE if self.on_accelerator else "cpu")


VIEWS = (
    View(name="as recorded", meaning="events, stacks and annotations of the whole run", strip=as_recorded),
    View(
        name="accelerator",
        meaning="translated to an accelerator: addresses of the caching allocator, no stacks in backward",
        strip=as_recorded,
        on_accelerator=True,
    ),
    View(
        name="accelerator, late",
        meaning="the same from the end of step 1 on: what lived then has no stack. Where gradients are never freed, "
        "only address order tells them from states: totals by category are right, which block is which may not be",
        strip=lambda rank: late(rank, DEVICE),
        on_accelerator=True,
    ),
    View(name="late", meaning="as recorded, from the end of step 1 on", strip=lambda rank: late(rank, "cpu")),
    View(name="no stacks", meaning="events and annotations only", strip=without_stacks),
)
"""The first is what the targets are set for."""
