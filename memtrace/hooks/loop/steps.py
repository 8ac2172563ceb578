"""Where a step ends: told from optimizer steps, scaler skips, and the set of optimizers that take part.

One step is one optimizer step. Where a loop has several optimizers (a GAN, one optimizer a parameter), a step ends
when each of those that took part in the step before has stepped; in the first step, each that exists. If one steps
again before that, the step had ended at the step before it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(slots=True)
class StepEnd:
    """The end of a step, perhaps known only later."""

    end_ns: int | None
    """Unix time at which the last optimizer step of the step ended; `None` if it has not."""
    skipped: bool
    """Whether a gradient scaler skipped every optimizer step in it."""


class StepTracker:
    """Decides when a step has ended. Optimizers are known by `id`; the caller says when one is gone."""

    def __init__(self, on_end: Callable[[StepEnd], None]) -> None:
        self._on_end = on_end
        self._expected: set[int] = set()
        self._first = True
        self._stepped: dict[int, bool] = {}
        self._last_ns = 0
        self.explicit = False
        """Whether the user's own calls of `memtrace.step()` end the steps."""

    def has_stepped(self, optimizer: int) -> bool:
        """Return whether an optimizer has stepped in the step that runs."""
        return optimizer in self._stepped

    def created(self, optimizer: int) -> None:
        """Note a new optimizer; until the first step has ended, it is expected to take part."""
        if self._first:
            self._expected.add(optimizer)

    def gone(self, optimizer: int) -> None:
        """Note that an optimizer was freed."""
        self._expected.discard(optimizer)

    def before(self, optimizer: int) -> None:
        """Note that an optimizer is about to step: if it did already, the step ended then."""
        if optimizer in self._stepped and not self.explicit:
            self._end(self._last_ns)

    def after(self, optimizer: int, now_ns: int, *, skipped: bool = False) -> None:
        """Note that an optimizer has stepped, or that a gradient scaler skipped its step."""
        self._stepped[optimizer] = skipped
        self._last_ns = now_ns
        if self._expected <= self._stepped.keys() and not self.explicit:
            self._end(now_ns)

    def mark(self, now_ns: int) -> None:
        """End the step now: the user said so, or there is no optimizer and the next forward begins."""
        self._end(now_ns)

    def _end(self, end_ns: int) -> None:
        skipped = bool(self._stepped) and all(self._stepped.values())
        self._expected = set(self._stepped) or self._expected
        self._first = False
        self._stepped = {}
        self._on_end(StepEnd(end_ns, skipped))
