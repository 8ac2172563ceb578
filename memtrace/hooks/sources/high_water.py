"""High-water marks: the most that was handed out within a step, whether it is recorded or not.

On the CPU the events of a rolling window tell it exactly, and where none are made nothing does. An accelerator has a
counter of its own, which is the program's to reset: it is only read, so that it tells of a step that goes beyond all
before it. Of the process, the system keeps the largest resident memory, which tells the same of the host.
"""

from __future__ import annotations

from typing import NamedTuple


class HighWaterMark(NamedTuple):
    """The marks of one step."""

    num_bytes: int | None
    """Most that the allocator had handed out; `None` where that is not known."""
    host_rss_bytes: int | None
    """The largest resident host memory there ever was, where it rose."""

    def joined(self, other: HighWaterMark) -> HighWaterMark:
        """Return the marks of two stretches of one step."""
        return HighWaterMark(*(_larger(one, two) for one, two in zip(self, other, strict=True)))


NO_MARK = HighWaterMark(None, None)


class HighWaterMarks:
    """Collects what tells a mark until somebody takes it."""

    def __init__(self) -> None:
        self._most: int | None = None
        self._counter: int | None = None
        self._rss: int | None = None

    def saw(self, num_bytes: int) -> None:
        """Note how much was handed out at some moment."""
        self._most = _larger(self._most, num_bytes)

    def counter_says(self, peak_bytes: int | None) -> None:
        """Note an allocator's own peak, which says something new only where it is not what it was.

        Where it is lower, the program has reset it meanwhile: then it is the most since.
        """
        if peak_bytes is not None and peak_bytes != self._counter:
            self.saw(peak_bytes)
        self._counter = peak_bytes

    def take(self, peak_rss_bytes: int | None) -> HighWaterMark:
        """Return the marks since the last time; the process's own peak counts where it rose."""
        rose = peak_rss_bytes is not None and (self._rss is None or peak_rss_bytes > self._rss)
        self._rss = peak_rss_bytes
        most, self._most = self._most, None
        return HighWaterMark(most, peak_rss_bytes if rose else None)


def _larger(one: int | None, two: int | None) -> int | None:
    return max((each for each in (one, two) if each is not None), default=None)
