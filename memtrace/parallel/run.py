"""The report of a run, however many files it lies in.

In: paths and URLs. Out: `Report`. Every file goes through `analyze_file`: in this process, in several, or on a Dask
cluster. Results are put together in the order of ranks, so that all three give the same report.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path

from memtrace.analysis.report import combine
from memtrace.analysis.results.report import Report
from memtrace.errors import MemtraceError, TraceVersionError
from memtrace.parallel.maps import MAX_FILES, Ranks, files_with_maps, left_out, without_maps
from memtrace.parallel.one_file import FileAnalysis, Outcome, Runner, Work, analyze_file, analyze_in_turn
from memtrace.parallel.processes import analyze_in_processes, num_processors
from memtrace.parallel.sources import Source, find_sources
from memtrace.schema.redaction import UNNAMED, Redaction, without_places
from memtrace.store.files import Progress
from memtrace.store.reading.merge import join_processes, unreadable_files
from memtrace.store.reading.one_run import check_one_run
from memtrace.store.reading.read import no_trace_in, run_name
from memtrace.store.redaction.redact import redacted_warnings
from memtrace.store.trace import LoadWarning

SMALL_BYTES = 8 << 20
"""A run of fewer bytes is analysed before a second process is ready to help: starting one takes a second."""
_EXPANSION = 16
"""How many bytes a byte of a compressed trace stands for, about."""


def report_of(
    paths: Sequence[str | Path],
    *,
    capacity_bytes: int | None = None,
    with_map: bool = False,
    redaction: Redaction = Redaction.NOTHING,
    cluster: str | None = None,
    progress: Progress | None = None,
) -> Report:
    """Return the report of the files and folders at these paths and URLs, read as one run.

    `capacity_bytes` stands in for the total memory of the devices. `with_map` adds every allocation, of a large run
    those of some ranks. `redaction` says what is left out. `cluster` is the address of a Dask scheduler whose workers
    do the reading. Where at least one file can be read, those that cannot are warnings.

    Raises:
        TraceReadError: nothing readable is there, or it is not of one run.
        TraceVersionError: a newer memtrace wrote a file.
        MemtraceError: the cluster cannot be reached, or an optional package is absent.
    """
    sources = find_sources(paths)
    title = run_name(paths) if redaction is Redaction.NOTHING else UNNAMED
    run = _runner(sources, cluster, progress)
    work = functools.partial(analyze_file, capacity_bytes=capacity_bytes, redaction=redaction)
    is_few = len(sources) <= MAX_FILES
    outcomes = _outcomes(run, functools.partial(work, with_map=with_map and is_few), sources, progress)
    files, warnings = _read(sources, outcomes, title)
    check_one_run([(sources[at].name, ranks) for at, ranks in files.items()], title=title)
    warnings = redacted_warnings(warnings, redaction, names=[source.name for source in sources])
    report = _combined(files, warnings, title, redaction)
    if is_few or not with_map:
        return report
    chosen = files_with_maps(report, files)
    again = _outcomes(run, functools.partial(work, with_map=True), [sources[at] for at in chosen], progress)
    mapped = {at: one.ranks for at, one in zip(chosen, again, strict=True) if isinstance(one, FileAnalysis)}
    if len(mapped) < len(files):
        warnings.append(left_out(files, list(mapped)))
    every = {at: mapped[at] if at in mapped else without_maps(ranks) for at, ranks in files.items()}
    return _combined(every, warnings, title, redaction)


def _read(
    sources: Sequence[Source], outcomes: Sequence[Outcome], title: str
) -> tuple[dict[int, Ranks], list[LoadWarning]]:
    """Return the ranks of each file that could be read, by position, and what is to be said of the files.

    Raises:
        Exception: what the first file came to, if none could be read.
    """
    files = {at: one for at, one in enumerate(outcomes) if isinstance(one, FileAnalysis)}
    failed = [(source, one) for source, one in zip(sources, outcomes, strict=True) if isinstance(one, Exception)]
    # Notes and logs lie in run folders too; only what should have been readable is worth a warning.
    failed = [(source, error) for source, error in failed if source.is_named or not _is_foreign(error)]
    if not files:
        raise failed[0][1] if failed else no_trace_in(title)
    warnings = unreadable_files([_as_told(source, error) for source, error in failed])
    warnings += [warning for file in files.values() for warning in file.warnings]
    return {at: file.ranks for at, file in files.items()}, warnings


def _combined(files: Mapping[int, Ranks], warnings: Sequence[LoadWarning], title: str, redaction: Redaction) -> Report:
    ranks, notes = join_processes([rank for ranks in files.values() for rank in ranks], warnings)
    report = combine(ranks, title=title, warnings=notes)
    return without_places(report) if redaction is Redaction.SOURCE else report


def _runner(sources: Sequence[Source], cluster: str | None, progress: Progress | None) -> Runner:
    """Return what does the work: a cluster if one is named, else as many processes as help."""
    if cluster is not None:
        from memtrace.parallel.dask_cluster import analyze_on_cluster

        return functools.partial(analyze_on_cluster, address=cluster)
    num_processes = min(num_processors(), len(sources))
    if num_processes > 1 and sum(map(_num_bytes, sources)) > SMALL_BYTES:
        return functools.partial(analyze_in_processes, num_processes=num_processes)
    return functools.partial(analyze_in_turn, progress=progress)


def _num_bytes(source: Source) -> int:
    return source.size_bytes * (_EXPANSION if source.place.endswith(".gz") else 1)


def _outcomes(run: Runner, work: Work, sources: Sequence[Source], progress: Progress | None) -> list[Outcome]:
    """Return what came of each source, in their order."""
    outcomes: dict[int, Outcome] = {}
    with closing(run(work, sources)) as done:
        for at, outcome in done:
            # What a newer memtrace wrote is not damaged: here, not in the file, something is to be done.
            if isinstance(outcome, TraceVersionError):
                raise outcome
            outcomes[at] = outcome
            if progress is not None and len(sources) > 1:
                progress(f"analysed {len(outcomes)} of {len(sources)} files", len(outcomes), len(sources))
    return [outcomes[at] for at in range(len(sources))]


def _is_foreign(error: Exception) -> bool:
    """Return whether a file is no trace at all."""
    return isinstance(error, MemtraceError) and error.slug == "wrong-kind"


def _as_told(source: Source, error: Exception) -> MemtraceError:
    """Return what a warning says of a file that came to nothing."""
    if isinstance(error, MemtraceError):
        return error
    return MemtraceError(f"{source.name}: it could not be analysed ({type(error).__name__}: {error})")
