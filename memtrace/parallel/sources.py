"""What is to be read: the files of a run, in the order of names, on this machine or wherever fsspec reaches.

In: paths and URLs, as a user names them. Out: `Source`s, one for each file that is read on its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from memtrace.errors import TraceReadError
from memtrace.parallel.remote import is_url, local_path, read_remote, remote_files
from memtrace.store.files import Progress
from memtrace.store.reading.read import files_in, is_run_folder, read_file
from memtrace.store.trace import Trace


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """One file, or one folder of parts."""

    place: str
    """Absolute path, or URL."""
    name: str
    """What messages call it: as the user named it."""
    size_bytes: int
    """Of a folder, the bytes of its files; 0 where that is not known."""
    is_named: bool
    """Whether the user named the file itself; in a folder that was named, other files may lie too."""


def find_sources(paths: Sequence[str | Path]) -> list[Source]:
    """Return the files of the run that these paths and URLs name.

    Raises:
        TraceReadError: a folder cannot be listed, or nothing was named. MemtraceError: URLs need fsspec.
    """
    if not paths:
        raise TraceReadError("no trace was named", hint="name a trace.json, a snapshot, a profile or a folder")
    return [source for path in paths for source in _named(path)]


def _named(path: str | Path) -> list[Source]:
    here = local_path(str(path)) if is_url(path) else Path(path)
    return _remote(str(path)) if here is None else _local(here)


def read_source(source: Source, progress: Progress | None = None) -> Trace:
    """Return the trace in one of the files.

    Raises:
        TraceReadError: it cannot be read. TraceVersionError: a newer memtrace wrote it.
    """
    if is_url(source.place):
        return read_remote(source.place)
    return read_file(Path(source.place), where=source.name, progress=progress)


def _local(path: Path) -> list[Source]:
    if is_run_folder(path):
        return [_local_source(child, is_named=False) for child in files_in(path)]
    return [_local_source(path, is_named=True)]


def _local_source(path: Path, *, is_named: bool) -> Source:
    files = [child for child in path.iterdir() if child.is_file()] if path.is_dir() else [path]
    # One that went away meanwhile is told of when it is read.
    size_bytes = sum(file.stat().st_size for file in files if file.exists())
    return Source(place=str(path.absolute()), name=str(path), size_bytes=size_bytes, is_named=is_named)


def _remote(url: str) -> list[Source]:
    return [
        Source(place=found.url, name=found.url, size_bytes=found.size_bytes, is_named=found.url == url)
        for found in remote_files(url)
    ]
