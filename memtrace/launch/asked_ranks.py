"""A rank that needs what others tell it, such as the shapes that a stage receives: those run first, one by one.

In: what runs a program as one rank. Out: the trace of the rank that was asked for.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from memtrace.errors import RecordError
from memtrace.schema.options import PredictOptions
from memtrace.schema.predicted import ASKED_RANKS
from memtrace.store.trace import Trace


def run_as_asked(run: Callable[[PredictOptions], Trace], wanted: PredictOptions) -> Trace:
    """Run a program as one rank, and before it each rank that it turns out to wait for, once.

    Raises:
        RecordError: it cannot be predicted, whatever the others tell.
    """
    ran: set[int] = set()
    waiting = [wanted.rank]
    while True:
        rank = waiting[-1]
        try:
            trace = run(wanted if rank == wanted.rank else replace(wanted, rank=rank))
            if len(waiting) == 1:
                return trace
        except RecordError:
            asked = [one for one in _asked(wanted) if one not in ran and one not in waiting]
            if asked:
                waiting += reversed(asked)
                continue
            # One of the others may have told what it has to before it failed.
            if len(waiting) == 1:
                raise
        ran.add(waiting.pop())


def _asked(gpu: PredictOptions) -> list[int]:
    """Return the ranks that the run before waited for, in the order in which they are to run; none if it did not."""
    if gpu.told_dir is None:
        return []
    path = Path(gpu.told_dir) / ASKED_RANKS
    found: list[int] = []
    with suppress(OSError, ValueError):
        found = [one for one in json.loads(path.read_text(encoding="utf-8")) if 0 <= one < gpu.world_size]
        path.unlink()
    return found
