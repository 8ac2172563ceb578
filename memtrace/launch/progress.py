"""How far a program has come that is still running: a line now and then, from the status files of its processes."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable
from pathlib import Path

from memtrace.schema.status import STATUS_BYTES, STATUS_SUFFIX

_SLOWER = 0.1
"""Share of the time so far that passes before the next line: a long run does not fill the screen."""


class Progress:
    """Says how many steps are done and how long it has taken; `say` is given a line at most every `every_s` seconds."""

    def __init__(
        self, num_steps: int, say: Callable[[str], None], *, every_s: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._num_steps = num_steps
        self._say = say
        self._every_s = every_s
        self._clock = clock
        self._began_s = clock()
        self._next_s = self._began_s + every_s

    def __call__(self, parts: Path) -> None:
        """Say a line, if it is time for one, of the program whose processes write into this folder."""
        now_s = self._clock()
        if now_s < self._next_s:
            return
        self._next_s = now_s + max(self._every_s, _SLOWER * (now_s - self._began_s))
        # A terminal that is gone must not end the program.
        with contextlib.suppress(OSError, ValueError):
            self._say(f"{_duration(now_s - self._began_s)}: {self._state(parts)}")

    def _state(self, parts: Path) -> str:
        ended = [_ended_steps(path) for path in parts.glob(f"*{STATUS_SUFFIX}")]
        if any(ended):
            return f"{min(max(ended), self._num_steps)} of {self._num_steps} steps"
        if any(parts.iterdir()):
            return "no step yet; what the program does before its first one (loading, sampling, evaluation) runs too"
        return "no step yet; the program has not imported torch"


def _ended_steps(path: Path) -> int:
    """Return the number of the last step that a process ended; 0 where there is none, or it cannot be told."""
    try:
        with path.open("rb") as file:
            found = json.loads(file.read(STATUS_BYTES)).get("ended_step")
    except (OSError, ValueError, AttributeError):
        # Read while it was written: the next line will tell.
        return 0
    return found if isinstance(found, int) else 0


def _duration(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
