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
from memtrace.schema.predicted import ASKED_RANKS, RAN
from memtrace.store.trace import Trace


def run_as_asked(run: Callable[[PredictOptions], Trace], wanted: PredictOptions) -> Trace:
    """Run a program as one rank, and before it each rank that it turns out to wait for, once.

    Raises:
        RecordError: it cannot be predicted, whatever the others tell.
    """
    return _Asking(run, wanted).run_rank(wanted.rank)


class _Asking:
    """The ranks that ran, and those that wait for the one that runs now."""

    def __init__(self, run: Callable[[PredictOptions], Trace], wanted: PredictOptions) -> None:
        self._run = run
        self._wanted = wanted
        self._ran: set[int] = set()
        self._waiting: list[int] = []

    def run_rank(self, rank: int) -> Trace:
        """Run a rank, again and again while it waits for others that have not run."""
        self._waiting.append(rank)
        try:
            while True:
                try:
                    return self._run(replace(self._wanted, rank=rank))
                except RecordError:
                    asked = [one for one in _asked(self._wanted) if one not in self._ran and one not in self._waiting]
                    if not asked:
                        raise
                # It has told what it can before they tell it more.
                self._note_ran(rank)
                for one in asked:
                    self._run_first(one)
        finally:
            self._waiting.pop()
            self._note_ran(rank)

    def _run_first(self, rank: int) -> None:
        if rank not in self._ran:
            # It may have told what it has to before it failed.
            with suppress(RecordError):
                self.run_rank(rank)
            self._ran.add(rank)

    def _note_ran(self, rank: int) -> None:
        """Leave word that nobody need wait for a rank any more."""
        if self._wanted.told_dir is not None:
            (Path(self._wanted.told_dir) / f"{RAN}{rank}").touch()


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
