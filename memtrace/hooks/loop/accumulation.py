"""Micro-batches of a step: passes whose gradients are added up for one optimizer step.

Not every backward pass is one. A discriminator's pass and a generator's pass train different modules, and gradients
that are dropped in between, as a closure does that an optimizer calls many times, are not added up. So passes count
that begin with the same module, from one optimizer step or `zero_grad` to the next.
"""

from __future__ import annotations


class Accumulation:
    """Counts the micro-batches of the step that runs."""

    def __init__(self) -> None:
        self._first: int | None = None
        self._has_begun = False
        self._counts: dict[int | None, int] = {}
        self._most = 0
        self._most_before = 0

    @property
    def num_microbatches(self) -> int:
        """Micro-batches of the step: the most that any optimizer step of it was made of."""
        return max(self._most, *self._counts.values(), 0)

    def forward(self, module: object) -> None:
        """Note that a pass calls a module from outside any other."""
        if not self._has_begun:
            self._first, self._has_begun = id(module), True

    def backward(self) -> None:
        """Note that a backward pass has ended; a second one of the same forward is none of its own."""
        if self._has_begun or not self._counts:
            self._counts[self._first] = self._counts.get(self._first, 0) + 1
        self._first, self._has_begun = None, False

    def cut(self) -> None:
        """Note that what was added up is used, or dropped."""
        self._most = self.num_microbatches
        self._counts = {}

    def may_end_step(self) -> None:
        """Note that the next step may begin here."""
        self.cut()
        self._most_before, self._most = self._most, 0

    def goes_on(self) -> None:
        """Note that it did not."""
        self._most = max(self._most, self._most_before)

    def start_step(self) -> None:
        """Count those of a new step from 0."""
        self.cut()
        self._most = 0
