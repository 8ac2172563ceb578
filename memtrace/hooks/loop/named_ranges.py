"""Named ranges of the program (`record_function`), noted where Python enters and leaves them.

Not through the profiler, which could tell them too: an event that is open when a profiler stops is written to when it
ends, and that memory is freed by then. Ours stops inside such ranges (every optimizer step is one), so it is never
started with them.
"""

from __future__ import annotations

from collections.abc import Callable
from time import time_ns
from typing import Any

from memtrace.hooks.parts.chunk import Row


class Annotations:
    """Emits one row of the `annotations` table whenever a range of the training thread ends."""

    def __init__(self, emit: Callable[[Row], None]) -> None:
        self._emit = emit
        self._open: list[tuple[int, str, int]] = []

    def enter(self, named_range: Any, *_args: Any) -> None:
        """Note that a range begins."""
        self._open.append((id(named_range), str(named_range.name), time_ns()))

    def leave(self, named_range: Any, *_args: Any) -> None:
        """Note that it ends; ranges inside it that were never left end with it."""
        if not any(key == id(named_range) for key, _, _ in self._open):
            return
        while self._open:
            key, name, start_ns = self._open.pop()
            self._emit((name, start_ns, time_ns(), None))
            if key == id(named_range):
                return
