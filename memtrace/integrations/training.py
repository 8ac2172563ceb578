"""What the callbacks of trainers have in common: a recording that a trainer's own events begin, divide and end."""

from __future__ import annotations

import atexit
import os
from pathlib import Path
from typing import Any


class TrainingRecording:
    """A recording from now until training ends, or the process does.

    Under `memtrace record` the process is recorded already: then steps are marked, and no other trace is written.
    """

    def __init__(self, output: str | Path, *, force: bool, options: dict[str, Any]) -> None:
        """Begin to record; arguments as of `memtrace.start`, which may raise `RecordError` and `OutputError`."""
        from memtrace import api

        self.written: Path | None = None
        """The trace, once it is written."""
        self._api = api
        api.start(of_this_rank(Path(output), os.environ), force=force, **options)
        # A trainer tells nobody when training fails: the trace is then written as the process exits.
        atexit.register(self.end)

    def begin(self) -> None:
        """Note that training begins: from now on the trainer says where steps end."""
        self._api.follow_steps()

    def step(self) -> None:
        """Note that a step has ended."""
        self._api.step()

    def end(self) -> None:
        """End the recording and write the trace; nothing happens the second time."""
        atexit.unregister(self.end)
        self.written = self._api.stop() or self.written


def of_this_rank(path: Path, environ: Any) -> Path:
    """Return where a rank writes: of several, each names its file after itself, since ranks never talk.

    >>> of_this_rank(Path("run/trace.json.gz"), {"RANK": "3", "WORLD_SIZE": "8"}).as_posix()
    'run/trace.rank3.json.gz'
    >>> of_this_rank(Path("trace.json"), {}).as_posix()
    'trace.json'
    """
    if not environ.get("WORLD_SIZE", "1").isdigit() or int(environ.get("WORLD_SIZE", "1")) < 2:
        return path
    suffix = ".json.gz" if path.name.endswith(".json.gz") else path.suffix
    return path.with_name(f"{path.name.removesuffix(suffix)}.rank{environ.get('RANK', '0')}{suffix}")
