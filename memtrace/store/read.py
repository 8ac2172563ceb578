"""The one way in: any known file or folder becomes a frozen `Trace`. What a file is, its content says, not its name."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from memtrace.errors import TraceReadError, TraceVersionError
from memtrace.schema.records import PARTS_SUFFIX
from memtrace.schema.version import PART_FORMAT, TRACE_FORMAT
from memtrace.store.files import Opened, Progress, one_part, open_file, parse_json
from memtrace.store.kineto import is_profile, read_profile
from memtrace.store.merge import merge_traces
from memtrace.store.parts import part_names, read_parts
from memtrace.store.printable import printable
from memtrace.store.restricted_pickle import load_plain_pickle, paused_gc
from memtrace.store.torch_snapshot import read_snapshot
from memtrace.store.trace import LoadWarning, RankTrace, Trace
from memtrace.store.trace_file import read_trace_document

__all__ = ["Progress", "read_trace"]


def read_trace(paths: str | Path | Sequence[str | Path], *, progress: Progress | None = None) -> Trace:
    """Return the trace in a file or a folder, or in several of them as one run.

    A file is a memtrace trace, a torch memory snapshot or a Kineto profile, compressed or not; a folder holds such
    files, or the parts of a recording. In a folder, files that cannot be read become warnings.

    Raises:
        TraceReadError: nothing readable is there. TraceVersionError: a newer memtrace wrote it.
    """
    given = [Path(paths)] if isinstance(paths, (str, Path)) else [Path(path) for path in paths]
    if not given:
        raise TraceReadError("no trace was named", hint="name a trace.json, a snapshot, a profile or a folder")
    traces = [_read_folder(path, progress) if path.is_dir() else _read_file(path, progress) for path in given]
    name = str(given[0]) if len(given) == 1 else f"{given[0]} and {len(given) - 1} more"
    return merge_traces(traces, path=name)


def _read_folder(folder: Path, progress: Progress | None) -> Trace:
    """Return the trace in a folder of parts, or in a run folder of trace files (and parts that nobody assembled)."""
    if part_names(folder):
        return Trace(header={}, ranks=tuple(read_parts(folder, progress=progress)), path=str(folder))
    children = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    traces: list[Trace] = []
    warnings: list[LoadWarning] = []
    first_error: TraceReadError | None = None
    for at, path in enumerate(children):
        if progress is not None:
            progress(f"reading {path.name}", at, len(children))
        try:
            if path.is_file():
                traces.append(_read_file(path, progress))
            elif path.name.endswith(PARTS_SUFFIX) and part_names(path):
                traces.append(_read_folder(path, progress))
        except TraceVersionError:
            raise
        except TraceReadError as error:
            # Notes and logs lie in run folders too; only what should have been readable is worth a warning.
            if error.slug != "wrong-kind":
                first_error = first_error or error
                warnings.append(LoadWarning(slug="file-unreadable", message=printable(error.message)))
    if not traces:
        raise first_error or TraceReadError(
            f"{folder}: no trace in this folder",
            hint="name the output of memtrace record, a snapshot or a profile",
            slug="no-trace",
        )
    return merge_traces(traces, path=str(folder), warnings=warnings)


def _read_file(path: Path, progress: Progress | None) -> Trace:
    with paused_gc():
        opened = open_file(path, progress=progress)
        if progress is not None:
            progress(f"reading {path.name}", 0, opened.size_bytes)
        read = _read_pickle if opened.kind == "pickle" else _read_json
        return read(opened)


def _read_pickle(opened: Opened) -> Trace:
    where = str(opened.path)
    if opened.content is None:
        with opened.path.open("rb") as file:
            data = load_plain_pickle(file, size_bytes=opened.size_bytes, where=where)
    else:
        data = load_plain_pickle(io.BytesIO(opened.content), size_bytes=opened.size_bytes, where=where)
    return _alone(read_snapshot(data, where=where), where)


def _read_json(opened: Opened) -> Trace:
    where, content = str(opened.path), opened.content or b""
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
        f"{where}: {printable(what)[:200]}",
        hint="memtrace reads its own trace.json, and the profiles of torch (with traceEvents)",
        slug="wrong-kind",
    )


def _alone(rank: RankTrace, where: str) -> Trace:
    return Trace(header={}, ranks=(rank,), path=where)
