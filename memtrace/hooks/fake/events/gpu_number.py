"""Which of the GPUs of its machine a process uses: one alone is predicted, whichever the program takes.

A rank beside the first takes the GPU of its own number. What is put on "cuda" lies on the one that was chosen last.
"""

from __future__ import annotations

from typing import Any


class GpuNumber:
    """The number that the program chose, and that of the GPU on which it put something first."""

    def __init__(self, count: int = 1) -> None:
        self.count = count
        """GPUs that the process sees."""
        self.current = 0
        """What the program chose last, as by `torch.cuda.set_device`."""
        self._used: int | None = None

    @property
    def number(self) -> int:
        """The one that something lies on; before that, the one that is chosen."""
        return self.current if self._used is None else self._used

    @property
    def name(self) -> str:
        """The same as a trace and torch write it."""
        return f"cuda:{self.number}"

    def choose(self, device: Any) -> int:
        """Make another GPU the current one, and return which it was before; a negative number leaves it.

        Raises:
            RuntimeError: the process sees no such GPU.
        """
        before, number = self.current, self._number_of(device)
        if number >= self.count:
            raise self._invalid(number)
        if number >= 0:
            self.current = number
        return before

    def use(self, number: int | None) -> int | None:
        """Put something on a GPU, `None` for the current one; return the one in use where it is another.

        Raises:
            RuntimeError: the process sees no such GPU.
        """
        asked = self.current if number is None else number
        if asked >= self.count:
            raise self._invalid(asked)
        if self._used is None:
            self._used = asked
        return None if asked == self._used else self._used

    def _number_of(self, device: Any) -> int:
        """Return the number of a device as programs name it: a number, a name or a device; without one -1."""
        if hasattr(type(device), "__index__"):
            return int(device.__index__())
        tail = str(device).partition(":")[2]
        return int(tail) if tail.isdigit() else -1

    def _invalid(self, number: int) -> RuntimeError:
        return RuntimeError(f"CUDA error: invalid device ordinal\ncuda:{number}, of {self.count} GPUs")
