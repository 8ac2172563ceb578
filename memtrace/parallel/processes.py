"""Files analysed in several processes of this machine. A process that dies loses nothing: its files are tried again.

What killed a process cannot be told from what was in work beside it. So everything that was in work is done again in
processes that do one thing at a time: a file that kills two processes is given up, the others are not harmed.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from pathlib import Path

from memtrace.errors import TraceReadError
from memtrace.parallel.one_file import FileAnalysis, Outcome, Outcomes, Work
from memtrace.parallel.sources import Source

_CPU_QUOTA = Path("/sys/fs/cgroup/cpu.max")


def num_processors() -> int:
    """Return how many processors this process may use: those it may run on, or what a container's quota comes to."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = _CPU_QUOTA.read_text(encoding="ascii").split()
        return max(1, min(allowed, round(int(quota) / int(period))))
    except (OSError, ValueError):
        # No such group, or the quota is "max".
        return allowed


def analyze_in_processes(work: Work, sources: Sequence[Source], *, num_processes: int) -> Outcomes:
    """Do the work in `num_processes` processes, fewer if they go on dying; yields as files are done."""
    todo = list(reversed(range(len(sources))))
    deaths = 0
    while todo:
        in_work: dict[Future[FileAnalysis], int] = {}
        try:
            with _pool(num_processes) as pool:
                while todo or in_work:
                    # One more than there are processes: no process waits, and few are in doubt when one dies.
                    while todo and len(in_work) <= num_processes:
                        future = pool.submit(work, sources[todo[-1]])
                        in_work[future] = todo.pop()
                    for future in wait(in_work, return_when=FIRST_COMPLETED).done:
                        outcome = _outcome(future)
                        yield in_work.pop(future), outcome
        except BrokenProcessPool:
            deaths += 1
            yield from _one_by_one(work, sources, sorted(in_work.values()))
            # A second death may be for want of memory, of which fewer processes need less.
            num_processes = num_processes if deaths == 1 else max(1, num_processes // 2)


def _one_by_one(work: Work, sources: Sequence[Source], doubtful: Sequence[int]) -> Outcomes:
    """Do the work with nothing beside it, in a process that lives as long as all goes well."""
    todo = list(reversed(doubtful))
    while todo:
        try:
            with _pool(1) as pool:
                while todo:
                    outcome = _outcome(pool.submit(work, sources[todo[-1]]))
                    yield todo.pop(), outcome
        except BrokenProcessPool:
            at = todo.pop()
            message = f"{sources[at].name}: the process that read it was killed, and so was a second one"
            yield at, TraceReadError(message, hint="it may need more memory than there is", slug="reader-killed")


def _outcome(future: Future[FileAnalysis]) -> Outcome:
    """Return what came of a file; raises BrokenProcessPool if that is not known."""
    try:
        return future.result()
    except BrokenProcessPool:
        raise
    except Exception as error:
        return error


@contextmanager
def _pool(num_processes: int) -> Iterator[ProcessPoolExecutor]:
    # Spawned: a fork would copy whatever threads and locks the caller has.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(num_processes, mp_context=context, initializer=_start)
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


def _start() -> None:
    """Prepare a process of the pool: it ends with the one that started it, and leaves Ctrl-C to it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
