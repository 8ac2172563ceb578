"""Reports with the time of a GPU, for tests of the page: beside memory, and alone. Times of the profile are in µs."""

from __future__ import annotations

from functools import cache

from memtrace.analysis.report import analyze
from memtrace.analysis.results.report import RankReport, Report
from tests.analysis.small_profile import Profile
from tests.analysis.small_trace import event_rows, step, trace, window

NCCL = "ncclDevKernel_AllGather_RING_LL(<img src=x onerror=alert(1)>)"


def profile() -> Profile:
    """Return two steps of 1 ms: compute with communication that it hides a part of, copies, and two waits."""
    made = Profile()
    for number in (1, 2):
        start = number * 1000.0
        made.step(number, start, start + 1000)
        made.add("user_annotation", "enumerate(DataLoader)#x.__next__", start + 20, start + 80)
        made.add("cuda_runtime", "cudaMalloc", start + 90, start + 95)
        made.copy(start + 100, start + 150)
        made.gpu(start + 200, start + 400).gpu(start + 420, start + 500)
        made.communication(start + 450, start + 700, name=NCCL)
        for at in range(40):
            made.gpu(start + 750 + 5 * at, start + 752 + 5 * at)
    return made


@cache
def timed_report() -> Report:
    """Return a recording of memory, with steps and the profile beside it."""
    events = [("alloc", 0x1000 * at, 4096 * at) for at in range(1, 101)]
    events += [("free_completed", 0x1000 * at, 4096 * at) for at in range(100, 0, -1)]
    rows = event_rows(events)
    for at, row in enumerate(rows):
        row["time_ns"] = 1_000_000 + at * 10_000
    steps = [step(1, 1_000_000, 2_000_000), step(2, 2_000_000, 3_000_000)]
    whole = window(0, len(events)) | {"start_ns": 1_000_000, "end_ns": 3_000_000}
    return analyze(trace(profile().recorded(events=rows, windows=[whole], steps=steps)), with_map=True)


@cache
def time_alone_report() -> Report:
    """Return the profile alone: it holds no memory."""
    return analyze(trace(profile().rank()), with_map=True)


def rank_with_time(report: Report) -> RankReport:
    """Return the one rank of a report that has a time."""
    (rank,) = [rank for rank in report.ranks if rank.time is not None]
    return rank
