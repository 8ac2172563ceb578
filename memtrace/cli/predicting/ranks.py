"""Which ranks `memtrace predict` runs, one after the other, and where the trace of each goes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from memtrace.cli.shell.told import say
from memtrace.schema.redaction import Redaction

if TYPE_CHECKING:
    from memtrace.cli.predicting.runs import PredictedRuns
    from memtrace.forecast.gpus import Gpu
    from memtrace.forecast.prediction.results import GpuVerdict, RankVerdict
    from memtrace.store.trace import Trace

ALL = "all"
_SUFFIXES = (".json.gz", ".json")


def asked_ranks(rank: int | None, ranks: str | None, world_size: int) -> list[int]:
    """Return the ranks that are asked for, each once, in order.

    Raises:
        click.UsageError: there are no such ranks, or both options are given.

    >>> asked_ranks(None, "0,3,3", 4), asked_ranks(None, "all", 3), asked_ranks(None, None, 8)
    ([0, 3], [0, 1, 2], [0])
    """
    if rank is not None and ranks is not None:
        raise click.UsageError("--rank is for one rank and --ranks for several: take one of them")
    words = ALL if ranks == ALL else (ranks or "").split(",") if ranks is not None else [str(rank or 0)]
    found = range(world_size) if words == ALL else [int(one) if one.strip().isdecimal() else -1 for one in words]
    if any(not 0 <= one < world_size for one in found):
        asked = f"--ranks {ranks}" if rank is None else f"--rank {rank}"
        raise click.UsageError(f"{asked}: ranks go from 0 to {world_size - 1}, by --world-size")
    return sorted(set(found))


def path_of_rank(path: Path, rank: int) -> Path:
    """Return where the trace of one of several ranks goes.

    >>> str(path_of_rank(Path("runs/predicted.json.gz"), 3))
    'runs/predicted.rank3.json.gz'
    """
    suffix = next((one for one in _SUFFIXES if path.name.endswith(one)), path.suffix)
    return path.with_name(f"{path.name.removesuffix(suffix)}.rank{rank}{suffix}")


def predict_ranks(
    places: Sequence[tuple[int, Path]],
    runs_of: Callable[[int, Path], PredictedRuns],
    gpu: Gpu,
    redaction: Redaction,
) -> tuple[Trace, GpuVerdict, tuple[RankVerdict, ...]]:
    """Run each rank and write its trace; return the trace and verdict of the fullest, and what is said of each.

    Raises:
        MemtraceError: one of them cannot be predicted; what is known of those before is written.
    """
    from memtrace.errors import MemtraceError
    from memtrace.forecast.prediction.results import RankVerdict, fullest_of
    from memtrace.store.redaction.redact import shareable
    from memtrace.store.writing.trace import write_trace

    found: list[RankVerdict] = []
    fullest: Trace | None = None
    for rank, path in places:
        runs = runs_of(rank, path)
        if len(places) > 1:
            say(f"memtrace: rank {rank} ({len(found) + 1} of {len(places)})")
        try:
            placed, verdict = runs.predicted(gpu)
        except MemtraceError as error:
            if len(places) > 1:
                error.message = f"rank {rank}: {error.message}"
            raise
        placed = shareable(placed, redaction)
        write_trace(placed, path)
        found.append(RankVerdict(rank=rank, trace_path=str(path), verdict=verdict))
        if fullest_of(found) is found[-1]:
            fullest = placed
    assert fullest is not None
    return fullest, fullest_of(found).verdict, tuple(found)
