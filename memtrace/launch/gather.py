"""From parts to output: find what the recorded processes left, assemble it, write it, and only then drop the parts."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from memtrace import __version__
from memtrace.errors import OutputError, RecordError
from memtrace.launch.output import LAUNCHER_FILE, Output, rank_file_name, read_launcher
from memtrace.schema.options import RecordOptions
from memtrace.schema.records import PARTS_SUFFIX, UNRECORDED_SUFFIX
from memtrace.schema.redaction import Redaction
from memtrace.schema.secret_arguments import masked_arguments
from memtrace.store.parts.folder import part_names, read_parts
from memtrace.store.reading.merge import merge_traces
from memtrace.store.reading.read import read_trace
from memtrace.store.redaction.redact import redacted, shareable
from memtrace.store.trace import LoadWarning, RankTrace, Trace
from memtrace.store.writing.trace import write_trace

MAX_RANKS_IN_FILE = 8
"""More ranks than this become a run folder, so that a reader can take one at a time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """What was written."""

    path: Path
    """The trace file, or the run folder."""
    num_bytes: int
    """Size of the files."""
    num_processes: int
    """Processes that were recorded."""
    is_complete: bool
    """Whether all of them ended in order."""
    warnings: tuple[LoadWarning, ...]
    """What the trace says of files and ranks that are missing."""
    num_unrecorded: int = 0
    """Forked processes that trained and were not recorded."""
    other_names: tuple[Path, ...] = ()
    """Files that got another name, since theirs was taken."""


def trace_header(command: Sequence[str], options: RecordOptions, exit_status: int | None) -> dict[str, Any]:
    """Return the header of a trace; of the options only those that a user chose, so that paths stay out of it."""
    return {
        "memtrace": __version__,
        "command": None if options.redact else masked_arguments(command),
        "redacted": options.redact,
        "exit_status": exit_status,
        "options": {
            "steps": options.steps,
            "stacks": options.stacks,
            "max_entries": options.max_entries,
            "profile": options.profile,
            "device": options.device,
        },
    }


def gather(output: Output, header: Mapping[str, Any], *, killed: str | None = None) -> Written | None:
    """Assemble and write what a launcher's processes left, and remove its parts; None if they left nothing.

    `killed` is noted in the trace if one of the processes did not end in order.

    Raises:
        TraceReadError: no part can be read. OutputError: not writable. The parts stay where they are.
    """
    if not part_names(output.parts_dir):
        drop_parts(output)
        return None
    ranks, warnings = read_parts(output.parts_dir)
    if killed is not None and not all(rank.complete for rank in ranks):
        warnings.append(LoadWarning(slug="host-kill-possible", message=killed))
    num_unrecorded = len(list(output.parts_dir.glob(f"*{UNRECORDED_SUFFIX}")))
    if num_unrecorded:
        message = "Forked processes trained and were not recorded; those that spawn or forkserver start are."
        warnings.append(LoadWarning(slug="forks-not-recorded", message=message, count=num_unrecorded))
    trace = Trace(header=header, ranks=tuple(ranks), path=str(output.path), warnings=tuple(warnings))
    if header.get("redacted"):
        trace = redacted(trace, Redaction.PERSONAL)
    trace = merge_traces([trace], path=str(output.path))
    is_folder = output.launcher_rank is not None or os.path.isdir(output.path) or num_ranks(trace) > MAX_RANKS_IN_FILE
    written = _write_folder(trace, output) if is_folder else _write_file(trace, output.path, force=output.force)
    drop_parts(output)
    return replace(written, num_unrecorded=num_unrecorded)


def merge_folder(folder: Path, path: Path, *, force: bool, redaction: Redaction = Redaction.NOTHING) -> Written:
    """Assemble a folder by hand: parts of one launcher, or a run folder with parts and traces of several.

    Ranks beyond `MAX_RANKS_IN_FILE` become a run folder unless the name asks for a file. The parts stay.

    Raises:
        RecordError: nothing to assemble is there. TraceReadError: it cannot be read. OutputError: not writable.
    """
    is_run_folder = next(folder.glob("*.json*"), None) is not None
    if not part_names(folder) and not is_run_folder and not any(_part_folders(folder)):
        raise RecordError(f"{folder}: no parts of a recording are there", hint="name a folder that ends in .parts")
    trace = read_trace(folder)
    launchers = [launcher.get("header") for launcher in map(read_launcher, [folder, *_part_folders(folder)])]
    known = next((header for header in launchers if isinstance(header, dict)), None)
    header = trace.header or known or {"memtrace": __version__, "command": None, "exit_status": None}
    if header.get("redacted") and redaction is Redaction.NOTHING:
        redaction = Redaction.PERSONAL
    trace = Trace(header=header, ranks=trace.ranks, path=str(path), warnings=trace.warnings)
    trace = shareable(trace, redaction)
    if os.path.isdir(path) or (num_ranks(trace) > MAX_RANKS_IN_FILE and not path.name.endswith((".json", ".json.gz"))):
        return _write_folder(trace, Output(path=path, parts_dir=folder, launcher_rank=None, force=force))
    return _write_file(trace, path, force=force)


def num_ranks(trace: Trace) -> int:
    """Return how many ranks a trace has; processes without one count together as one."""
    return len({rank.rank for rank in trace.ranks})


def drop_parts(output: Output) -> None:
    """Remove the folder of parts; what cannot be removed is left."""
    shutil.rmtree(output.parts_dir, ignore_errors=True)
    if output.launcher_rank is not None:
        with suppress(OSError):
            output.path.rmdir()  # only a run folder that holds nothing


def _part_folders(folder: Path) -> Iterator[Path]:
    return (path for path in sorted(folder.glob(f"*{PARTS_SUFFIX}")) if part_names(path) or _has_launcher(path))


def _has_launcher(folder: Path) -> bool:
    return (folder / LAUNCHER_FILE).exists()


def _write_file(trace: Trace, path: Path, *, force: bool) -> Written:
    if os.path.exists(path) and not force:
        raise OutputError(f"{path}: exists already", hint="choose another name, or add --force", slug="output-exists")
    write_trace(trace, path)
    return _written(trace, path, [path])


def _write_folder(trace: Trace, output: Output) -> Written:
    """Write a file a rank. Affects: files of earlier runs with other ranks, which `force` removes at the end."""
    folder = output.path
    with _as_output_error(folder):
        if output.force and os.path.lexists(folder) and not os.path.isdir(folder):
            folder.unlink()
        folder.mkdir(exist_ok=True)
    files: list[Path] = []
    other_names: list[Path] = []
    for name, ranks in sorted(_by_file(trace).items()):
        path = folder / name
        if path.exists() and not output.force:
            # Another launcher claims the same rank (a wrong environment): both are kept.
            path = _free_name(path, ranks[0])
            other_names.append(path)
        own = Trace(header=trace.header, ranks=tuple(ranks), path=str(path), warnings=trace.warnings)
        write_trace(own, path)
        files.append(path)
    if output.force and output.launcher_rank is None:
        for stale in set(folder.glob("rank-*.json*")) | set(folder.glob("process-*.json*")):
            if stale not in files:
                stale.unlink()
    return _written(trace, folder, files, tuple(other_names))


def _by_file(trace: Trace) -> dict[str, list[RankTrace]]:
    files: dict[str, list[RankTrace]] = {}
    for rank in trace.ranks:
        name = f"process-{rank.header.get('pid') or 0}.json.gz" if rank.rank is None else rank_file_name(rank.rank)
        files.setdefault(name, []).append(rank)
    return files


def _free_name(path: Path, rank: RankTrace) -> Path:
    stem = path.name.removesuffix(".json.gz")
    stem = f"{stem}-{rank.header.get('host') or 'host'}-{rank.header.get('pid') or 0}".replace("/", "_")
    candidates = (path.with_name(f"{stem}{number}.json.gz") for number in ("", *(f"-{one}" for one in range(2, 1000))))
    return next(one for one in candidates if not one.exists())


def _written(trace: Trace, path: Path, files: Sequence[Path], other_names: tuple[Path, ...] = ()) -> Written:
    return Written(
        path=path,
        num_bytes=sum(file.stat().st_size for file in files),
        num_processes=len(trace.ranks),
        is_complete=all(rank.complete for rank in trace.ranks),
        warnings=trace.warnings,
        other_names=other_names,
    )


@contextmanager
def _as_output_error(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        message = f"{path}: cannot be written: {error.strerror or error}"
        raise OutputError(message, slug="output-unwritable") from None
