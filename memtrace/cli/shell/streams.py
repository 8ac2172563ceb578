"""Standard output whose reader may go away: what is written afterwards is dropped, and the command goes on to its end.

So `memtrace check … | head -1` writes its files and ends with the exit code that the figures ask for.
"""

from __future__ import annotations

import contextlib
import io
import os
import stat
import sys
from typing import Any


class _Pipe(io.FileIO):
    """A pipe that becomes the null device when nobody reads it any more."""

    def write(self, data: Any) -> int | None:  # type: ignore[override]
        """Write, or drop what has no reader."""
        try:
            return super().write(data)
        except BrokenPipeError:
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, self.fileno())
            os.close(null)
            return memoryview(data).nbytes


def outlive_readers() -> None:
    """Let standard output outlive whoever reads it, if it is a pipe."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        number = sys.stdout.fileno()
        mode = os.fstat(number).st_mode
        if stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode):
            sys.stdout.flush()
            raw = io.BufferedWriter(_Pipe(number, "w", closefd=False))
            sys.stdout = io.TextIOWrapper(raw, encoding=sys.stdout.encoding, errors=sys.stdout.errors)
