"""Joining what several files or processes left into one trace, ordered by rank, and saying what is missing."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from memtrace.store.trace import LoadWarning, RankTrace, Trace

_MAX_NAMED = 8
"""Missing ranks named in a message; of more, only the first and the number are."""


def merge_traces(traces: Sequence[Trace], *, path: str, warnings: Iterable[LoadWarning] = ()) -> Trace:
    """Return one trace of all ranks; the header is that of the first trace that has one."""
    ranks = [rank for trace in traces for rank in trace.ranks]
    kept, num_duplicates = _without_duplicates(sorted(ranks, key=_order))
    notes = [*warnings, *(warning for trace in traces for warning in trace.warnings if warning.slug not in _COMPUTED)]
    if num_duplicates:
        message = "The same process was given more than once; the most complete of its traces is used."
        notes.append(LoadWarning(slug="duplicate-rank", message=message, count=num_duplicates))
    notes += _missing_ranks(kept)
    header = next((trace.header for trace in traces if trace.header), {})
    return Trace(header=header, ranks=tuple(kept), path=path, warnings=tuple(notes))


_COMPUTED = frozenset({"missing-ranks"})
"""Warnings that are found anew whenever traces are joined."""


def _order(rank: RankTrace) -> tuple[bool, int, str, int, int, bool, int]:
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
        -len(rank.table("events")),
    )


def _without_duplicates(ranks: Sequence[RankTrace]) -> tuple[list[RankTrace], int]:
    """Return the ranks with only the first trace of each process, and how many were dropped."""
    kept: dict[object, RankTrace] = {}
    for at, rank in enumerate(ranks):
        header = rank.header
        pid = header.get("pid")
        # Without a process id (snapshots, profiles) nothing says that two files are of one process.
        key = at if pid is None else (rank.rank, header.get("host"), pid, header.get("start_ns"), rank.source)
        kept.setdefault(key, rank)
    return list(kept.values()), len(ranks) - len(kept)


def _missing_ranks(ranks: Sequence[RankTrace]) -> list[LoadWarning]:
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
