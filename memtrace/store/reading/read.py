"""The one way in: any known file or folder becomes a frozen `Trace`. What a file is, its content says, not its name."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

from memtrace.errors import TraceReadError, TraceVersionError
from memtrace.paused_gc import paused_gc
from memtrace.printable import escaped
from memtrace.schema.records import PARTS_SUFFIX
from memtrace.schema.version import PART_FORMAT, TRACE_FORMAT
from memtrace.store.files import Opened, Progress, one_part, open_file, open_stream, parse_json
from memtrace.store.kineto.profile import is_profile, read_profile
from memtrace.store.opening import is_within_reach, open_regular
from memtrace.store.parts.folder import part_names, read_parts
from memtrace.store.reading.merge import merge_traces, unreadable_files
from memtrace.store.snapshots.packed_events import load_snapshot
from memtrace.store.snapshots.torch_snapshot import read_snapshot
from memtrace.store.trace import RankTrace, Trace
from memtrace.store.trace_file import read_trace_document

__all__ = ["Progress", "read_trace"]


def read_trace(paths: str | Path | Sequence[str | Path], *, progress: Progress | None = None) -> Trace:
    """Return the trace in a file or a folder, or in several of them as one run.

    A file is a memtrace trace, a torch memory snapshot or a Kineto profile, compressed or not; a folder holds such
    files, or the parts of a recording. In a folder, files that cannot be read become warnings.

    Raises:
        TraceReadError: nothing readable is there, or it is not of one run.
        TraceVersionError: a newer memtrace wrote it.
    """
    given = [Path(paths)] if isinstance(paths, (str, Path)) else [Path(path) for path in paths]
    if not given:
        raise TraceReadError("no trace was named", hint="name a trace.json, a snapshot, a profile or a folder")
    traces = [
        _read_folder(path, progress) if is_run_folder(path) else read_file(path, progress=progress) for path in given
    ]
    return merge_traces(traces, path=run_name(given))


def run_name(paths: Sequence[str | Path]) -> str:
    """Return what the run in these files and folders is called."""
    return str(paths[0]) if len(paths) == 1 else f"{paths[0]} and {len(paths) - 1} more"


def is_run_folder(path: Path) -> bool:
    """Return whether a path is a folder of traces: not a file, and not the parts of one recording."""
    return os.path.isdir(path) and not part_names(path)


def files_in(folder: Path) -> list[Path]:
    """Return what may be a trace in a run folder, in the order of names: its files, and folders of parts."""
    children = sorted(path for path in folder.iterdir() if not path.name.startswith(".") and is_within_reach(path))
    return [
        path for path in children if path.is_file() or (path.name.endswith(PARTS_SUFFIX) and bool(part_names(path)))
    ]


def no_trace_in(folder: str | Path) -> TraceReadError:
    """Return the error for a folder that holds nothing readable."""
    return TraceReadError(
        f"{folder}: no trace in this folder",
        hint="name the output of memtrace record, a snapshot or a profile",
        slug="no-trace",
    )


def _read_folder(folder: Path, progress: Progress | None) -> Trace:
    """Return the trace in a run folder: trace files, and parts that nobody assembled."""
    children = files_in(folder)
    traces: list[Trace] = []
    failed: list[TraceReadError] = []
    for at, path in enumerate(children):
        if progress is not None:
            progress(f"reading {path.name}", at, len(children))
        try:
            traces.append(read_file(path, progress=progress))
        except TraceVersionError:
            raise
        except TraceReadError as error:
            # Notes and logs lie in run folders too; only what should have been readable is worth a warning.
            if error.slug != "wrong-kind":
                failed.append(error)
    if not traces:
        raise failed[0] if failed else no_trace_in(folder)
    return merge_traces(traces, path=str(folder), warnings=unreadable_files(failed))


def read_file(path: Path, *, where: str | None = None, progress: Progress | None = None) -> Trace:
    """Return the trace in one file, or in one folder of parts; `where` is what messages call it, by default its path.

    Raises:
        TraceReadError: it cannot be read. TraceVersionError: a newer memtrace wrote it.
    """
    if os.path.isdir(path):
        ranks, left_out = read_parts(path, progress=progress)
        return Trace(header={}, ranks=tuple(ranks), path=where or str(path), warnings=tuple(left_out))
    with paused_gc():
        opened = open_file(path, where=where, progress=progress)
        if progress is not None:
            progress(f"reading {path.name}", 0, opened.size_bytes)
        if opened.content is None:
            with open_regular(path) as file:
                return _read_pickle(file, opened)
        return _read_content(opened, opened.content)


def read_stream(file: IO[bytes], *, where: str, size_bytes: int) -> Trace:
    """Return the trace in a file of `size_bytes` that lies anywhere; `where` is what messages call it.

    Raises:
        TraceReadError: it is no trace. TraceVersionError: a newer memtrace wrote it. OSError: it cannot be read.
    """
    with paused_gc():
        opened = open_stream(file, where=where, size_bytes=size_bytes)
        return _read_content(opened, opened.content or b"")


def _read_content(opened: Opened, content: bytes) -> Trace:
    return _read_pickle(io.BytesIO(content), opened) if opened.kind == "pickle" else _read_json(content, opened.where)


def _read_pickle(file: IO[bytes], opened: Opened) -> Trace:
    data = load_snapshot(file, size_bytes=opened.size_bytes, where=opened.where)
    return _alone(read_snapshot(data, where=opened.where), opened.where)


def _read_json(content: bytes, where: str) -> Trace:
    document = parse_json(content, where=where)
    if isinstance(document, dict) and document.get("format") == TRACE_FORMAT:
        return read_trace_document(document, where=where)
    if is_profile(document):
        return _alone(read_profile(document, where=where), where)
    raise _not_a_trace(document, where)


def _not_a_trace(document: Any, where: str) -> TraceReadError:
    name = document.get("format") if isinstance(document, dict) else None
    if name == PART_FORMAT:
        return one_part(where)
    what = f"this is a {name} document, not a trace" if isinstance(name, str) else "this JSON is not a trace"
    return TraceReadError(
        f"{where}: {escaped(what)[:200]}",
        hint="memtrace reads its own trace.json, and the profiles of torch (with traceEvents)",
        slug="wrong-kind",
    )


def _alone(rank: RankTrace, where: str) -> Trace:
    return Trace(header={}, ranks=(rank,), path=where)
