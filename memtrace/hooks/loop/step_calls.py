"""Calls of `Optimizer.step` that run now, so that one which raises is seen to have ended.

torch runs each inside a named range, which it leaves in any case. The post-hook runs only where the step came to its
end.
"""

from __future__ import annotations

_RANGE = "Optimizer.step#"


class StepCalls:
    """Counts the ranges of optimizer steps that are open, and in which of them a step has begun. Of one thread."""

    def __init__(self) -> None:
        self._num_ranges = 0
        self._began: list[int] = []

    def enter(self, name: str) -> None:
        """Note that a named range begins."""
        self._num_ranges += name.startswith(_RANGE)

    def begin(self) -> None:
        """Note that a step begins, in the innermost range."""
        self._began.append(self._num_ranges)

    def end(self) -> None:
        """Note that it has come to its end."""
        if self._began:
            self._began.pop()

    def leave(self, name: str) -> bool:
        """Note that a named range ends; return whether the step in it has not."""
        if not name.startswith(_RANGE) or self._num_ranges == 0:
            return False
        has_failed = self._num_ranges in self._began
        self._num_ranges -= 1
        self._began = [number for number in self._began if number <= self._num_ranges]
        return has_failed
