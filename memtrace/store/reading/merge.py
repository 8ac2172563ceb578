"""Joining what several files or processes left into one trace, ordered by rank, and saying what is missing."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeVar

from memtrace.errors import MemtraceError
from memtrace.printable import escaped
from memtrace.store.reading.one_run import check_one_run
from memtrace.store.reading.process import Process
from memtrace.store.trace import LoadWarning, Trace

_MAX_NAMED = 8
"""Missing ranks, or unreadable files, that are named; of more, only these and the number of the rest are."""


_P = TypeVar("_P", bound=Process)


def merge_traces(traces: Sequence[Trace], *, path: str, warnings: Iterable[LoadWarning] = ()) -> Trace:
    """Return one trace of all ranks; the header is that of the first trace that has one.

    Raises:
        TraceReadError: the traces are not of one run.
    """
    check_one_run([(trace.path, trace.ranks) for trace in traces], title=path)
    ranks, notes = join_processes(
        [rank for trace in traces for rank in trace.ranks],
        [*warnings, *(warning for trace in traces for warning in trace.warnings)],
    )
    header = next((trace.header for trace in traces if trace.header), {})
    return Trace(header=header, ranks=tuple(ranks), path=path, warnings=tuple(notes))


def join_processes(processes: Sequence[_P], warnings: Iterable[LoadWarning]) -> tuple[list[_P], list[LoadWarning]]:
    """Return the processes of a run in their order, each once, and what is to be said of their files.

    `warnings` are those of the files; each is said once, and what they say of missing ranks is told anew.
    """
    kept, num_duplicates = _without_duplicates(sorted(processes, key=_order))
    notes = [warning for warning in dict.fromkeys(warnings) if warning.slug not in _COMPUTED]
    if num_duplicates:
        message = "The same process was given more than once; the most complete of its traces is used."
        notes.append(LoadWarning(slug="duplicate-rank", message=message, count=num_duplicates))
    return kept, notes + _missing_ranks(kept)


def unreadable_files(errors: Sequence[MemtraceError]) -> list[LoadWarning]:
    """Return the warnings for files of a run that could not be read; beyond the first few they are only counted."""
    named = [LoadWarning(slug="file-unreadable", message=escaped(error.message)) for error in errors[:_MAX_NAMED]]
    num_more = len(errors) - len(named)
    if num_more:
        message = "More files of this run cannot be read."
        named.append(LoadWarning(slug="file-unreadable", message=message, count=num_more))
    return named


_COMPUTED = frozenset({"missing-ranks"})
"""Warnings that are found anew whenever traces are joined."""


def _order(rank: Process) -> tuple[bool, int, str, int, int, bool, int]:
    """Sort by rank, then host and process; of one process the most complete trace comes first."""
    header = rank.header
    number = rank.rank
    return (
        number is None,
        number or 0,
        str(header.get("host") or ""),
        header.get("pid") or 0,
        header.get("start_ns") or 0,
        not rank.complete,
        -rank.num_events,
    )


def _without_duplicates(ranks: Sequence[_P]) -> tuple[list[_P], int]:
    """Return the ranks with only the first trace of each process, and how many were dropped."""
    kept: dict[object, _P] = {}
    for at, rank in enumerate(ranks):
        header = rank.header
        pid = header.get("pid")
        # Without a process id (snapshots, profiles) nothing says that two files are of one process.
        key = at if pid is None else (rank.rank, header.get("host"), pid, header.get("start_ns"), rank.source)
        kept.setdefault(key, rank)
    return list(kept.values()), len(ranks) - len(kept)


def _missing_ranks(ranks: Sequence[Process]) -> list[LoadWarning]:
    """Return a warning for the ranks of the run that left no trace."""
    world_size = max((int(rank.header.get("world_size") or 0) for rank in ranks), default=0)
    present = {rank.rank for rank in ranks if rank.rank is not None}
    num_missing = world_size - len([one for one in present if 0 <= one < world_size]) if present else 0
    if num_missing <= 0:
        return []
    named = [str(number) for number in range(min(world_size, 10_000)) if number not in present][:_MAX_NAMED]
    more = ", …" if num_missing > len(named) else ""
    message = f"The run had {world_size} ranks; no trace of {num_missing} of them: {', '.join(named)}{more}."
    return [LoadWarning(slug="missing-ranks", message=message, count=num_missing)]
