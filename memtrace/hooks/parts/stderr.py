"""The one line that a recording may add to the program's stderr, as long as that is what it was at the start."""

from __future__ import annotations

import sys
from typing import Any

from memtrace.hooks.parts.as_imported import system


class WarningLine:
    """Writes a line to stderr, unless the program has since put something of its own in its place."""

    def __init__(self) -> None:
        self._at_start = _leads_to(sys.stderr)

    def __call__(self, message: str) -> None:
        """Write the line. A daemon's descriptor 2 may be its data file by now: then nothing is written."""
        if sys.stderr is not None and _leads_to(sys.stderr) == self._at_start:  # print would take stdout instead
            print(f"memtrace: {message}", file=sys.stderr, flush=True)


def _leads_to(stream: Any) -> tuple[int, int] | None:
    """Return the identity of a stream's file, None for one that has none."""
    try:
        found = system.fstat(stream.fileno())
    except (AttributeError, OSError, ValueError):
        return None
    return found.st_dev, found.st_ino
