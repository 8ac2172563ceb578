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


def analyze_on_cluster(work: Work, sources: Sequence[Source], *, address: str) -> Outcomes:
    """Do the work on the cluster of the scheduler at this address.

    Raises:
        MemtraceError: Dask is absent, the scheduler does not answer, or has another memtrace or none.
    """
    client = _connected(address)
    with client:
        from distributed import as_completed

        # Not pure: a file may have changed since it was read last, and its name not.
        futures = client.map(_on_worker, sources, work=work, version=__version__, pure=False)
        positions = {future: at for at, future in enumerate(futures)}
        del futures
        for future in as_completed(list(positions)):
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
    except (OSError, ValueError) as error:
        raise MemtraceError(
            f"{address}: no Dask scheduler answers there",
            hint="name one that runs, as in tcp://scheduler:8786",
            slug="cluster-unreachable",
        ) from error


def _outcome(future: Future[Any], source: Source, address: str) -> Outcome:
    from distributed import KilledWorker

    if future.status in ("cancelled", "lost"):
        raise MemtraceError(
            f"{address}: the scheduler went away before the work was done",
            hint="start it again, or leave --cluster out",
            slug="cluster-unreachable",
        )
    error = future.exception()
    if error is None:
        outcome: Outcome = future.result()
        return outcome
    if isinstance(error, KilledWorker):
        message = f"{source.name}: the worker that read it was killed, and so were others that tried"
        return TraceReadError(message, hint="it may need more memory than a worker has", slug="reader-killed")
    if isinstance(error, ModuleNotFoundError) and "memtrace" in str(error):
        raise _other_memtrace(f"{address}: a worker of the cluster has no memtrace")
    return error if isinstance(error, Exception) else MemtraceError(f"{source.name}: {error}")


def _other_memtrace(what: str) -> MemtraceError:
    hint = f"install memtrace[cluster] {__version__} where the scheduler and its workers run"
    return MemtraceError(what, hint=hint, slug="cluster-differs")
