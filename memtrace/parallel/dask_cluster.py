"""Files analysed by the workers of a running Dask cluster, each read where it is analysed.

In: the address of a scheduler. Only this file knows Dask, which places the work and does it again elsewhere when a
worker dies; a file that kills one worker after the other is given up, after as many as the cluster is set to allow.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from memtrace import __version__
from memtrace.errors import MemtraceError, TraceReadError
from memtrace.parallel.one_file import FileAnalysis, Outcome, Outcomes, Work
from memtrace.parallel.sources import Source

if TYPE_CHECKING:
    from distributed import Client, Future

_CONNECT_SECONDS = 10
_KILLED = "reader-killed"


def analyze_on_cluster(work: Work, sources: Sequence[Source], *, address: str) -> Outcomes:
    """Do the work on the cluster of the scheduler at this address.

    Raises:
        MemtraceError: Dask is absent, the scheduler does not answer, or has another memtrace or none.
    """
    with _connected(address) as client:
        doubtful = []
        for at, outcome in _together(client, work, sources, address):
            if isinstance(outcome, MemtraceError) and outcome.slug == _KILLED:
                doubtful.append(at)
            else:
                yield at, outcome
        # A worker that dies takes along what it had beside the file that killed it: alone, the others are not harmed.
        for at in sorted(doubtful):
            ((_, outcome),) = _together(client, work, [sources[at]], address)
            yield at, outcome


def _together(client: Client, work: Work, sources: Sequence[Source], address: str) -> Outcomes:
    """Do the work wherever Dask places it."""
    from distributed import as_completed

    # Not pure: a file may have changed since it was read last, and its name not.
    futures = client.map(_on_worker, sources, work=work, version=__version__, pure=False)
    positions = {future: at for at, future in enumerate(futures)}
    del futures
    # The loop is named because this client is nobody else's default.
    for future in as_completed(list(positions), loop=client.loop):
        # Whoever holds a future holds its result: it is dropped here and on the cluster.
        at = positions.pop(future)
        yield at, _outcome(future, sources[at], address)


def _on_worker(source: Source, work: Work, version: str) -> FileAnalysis | MemtraceError:
    """Do the work in a worker. A file that cannot be read is a result there, and no failure of the worker's."""
    if version != __version__:
        raise _other_memtrace(f"memtrace {version} here, and memtrace {__version__} on a worker of the cluster")
    try:
        return work(source)
    except MemtraceError as error:
        return error


def _connected(address: str) -> Client:
    try:
        from distributed import Client
    except ImportError:
        raise MemtraceError(
            "--cluster needs Dask, which is not installed", hint="pip install 'memtrace[cluster]'", slug="extra-missing"
        ) from None
    try:
        return Client(address, timeout=_CONNECT_SECONDS, set_as_default=False)
    except Exception as error:
        # Each transport of Dask has its own errors; on a busy machine an unknown one may fail an assertion instead.
        raise MemtraceError(
            f"{address}: no Dask scheduler answers there",
            hint="name one that runs, as in tcp://scheduler:8786",
            slug="cluster-unreachable",
        ) from error


def _outcome(future: Future[Any], source: Source, address: str) -> Outcome:
    """Return what came of a file; raises what is wrong with the cluster, and so with all files."""
    from distributed import KilledWorker

    if future.status in ("cancelled", "lost"):
        raise MemtraceError(
            f"{address}: the scheduler went away before the work was done",
            hint="start it again, or leave --cluster out",
            slug="cluster-unreachable",
        )
    error = future.exception()
    if isinstance(error, MemtraceError):
        raise error
    if isinstance(error, ModuleNotFoundError) and "memtrace" in str(error):
        raise _other_memtrace(f"{address}: a worker of the cluster has no memtrace")
    if isinstance(error, KilledWorker):
        message = f"{source.name}: the worker that read it was killed, and so was every other that tried"
        return TraceReadError(message, hint="it may need more memory than a worker has", slug=_KILLED)
    outcome: Outcome = future.result() if error is None else error
    return outcome


def _other_memtrace(what: str) -> MemtraceError:
    hint = f"install memtrace[cluster] {__version__} where the scheduler and its workers run"
    return MemtraceError(what, hint=hint, slug="cluster-differs")
