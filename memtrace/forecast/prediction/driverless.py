"""What a run on torch's own CUDA code says of a GPU: torch made the requests, reserved the memory, and ran out of it.

In: the trace of the run. Out: the same trace with the range and the doubts, and a verdict.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from memtrace.analysis.report import analyze
from memtrace.analysis.results.report import RankReport
from memtrace.errors import MemtraceError
from memtrace.forecast.gpus import Gpu
from memtrace.forecast.prediction.doubts import on_gpu
from memtrace.forecast.prediction.driverless_doubts import driverless_interval
from memtrace.forecast.prediction.judge import predicted_device, predicted_rank, usable_bytes
from memtrace.forecast.prediction.notes import with_prediction
from memtrace.forecast.prediction.results import Engine, FailedRequest, GpuVerdict
from memtrace.store.trace import RankTrace, Trace

_ENDED = (None, 0, -6, 134)
"""Exit statuses of a program that ended of itself; the last two of one that aborted when all its work was done."""


def driverless_trace(
    trace: Trace, gpu: Gpu, engine: Engine, run_without_end: Callable[[], Trace]
) -> tuple[Trace, GpuVerdict]:
    """Return a trace that says what is predicted, and the verdict for the GPU that it ran on.

    `run_without_end` runs the program once more, on a GPU with endless memory, where it ran out of it: the trace of
    that run says what it needs.

    Raises:
        MemtraceError: it put nothing on a GPU, or ended before a step for another reason than its memory.
    """
    rank = predicted_rank(trace)
    report = report_of(trace, rank)
    failed = failed_request(trace, rank, report)
    if failed is None:
        verdict = _verdict(gpu, rank, report)
    else:
        larger = run_without_end()
        larger_rank = predicted_rank(larger)
        needed = _verdict(gpu, larger_rank, report_of(larger, larger_rank))
        verdict = replace(
            needed,
            fits=False,
            is_close=needed.interval.device.low_bytes <= gpu.memory_bytes,
            failed=failed,
            failed_step=None if report.oom is None else report.oom.step,
        )
    return replace(trace, ranks=(with_prediction(rank, verdict, engine),)), verdict


def verdict_without_a_run(gpu: Gpu, largest: GpuVerdict) -> GpuVerdict | None:
    """Return the verdict for a GPU from that for a larger one of its kind; `None` where it must be run.

    A smaller GPU makes a difference only where more is reserved than it has.
    """
    capacity = usable_bytes(gpu)
    if gpu.name == largest.gpu.name:
        return largest
    if not largest.fits or largest.max_reserved_bytes > capacity:
        return None
    interval = on_gpu(largest.interval, gpu)
    return replace(
        largest,
        gpu=gpu,
        capacity_bytes=capacity,
        context_bytes=gpu.context.predicted_bytes,
        is_close=interval.device.high_bytes > gpu.memory_bytes,
        interval=interval,
        headroom_bytes=capacity - largest.max_reserved_bytes,
    )


def report_of(trace: Trace, rank: RankTrace) -> RankReport:
    """Return the report of the GPU that a rank used."""
    device = predicted_device(rank)
    return next(one for one in analyze(replace(trace, ranks=(rank,))).ranks if one.device == device)


def failed_request(trace: Trace, rank: RankTrace, report: RankReport) -> FailedRequest | None:
    """Return the request that ended the program; `None` if none failed, or the program went on."""
    oom = report.oom
    if oom is None or oom.time_ns is None or oom.predicted:
        return None
    if trace.header.get("exit_status") in _ENDED and not rank.header.get("exception"):
        return None
    return FailedRequest(
        time_ns=oom.time_ns,
        size_bytes=oom.request_bytes or 0,
        allocated_bytes=oom.in_use_bytes or 0,
        reserved_bytes=oom.reserved_bytes or 0,
    )


def _verdict(gpu: Gpu, rank: RankTrace, report: RankReport) -> GpuVerdict:
    """Return the verdict for a run that had enough memory."""
    capacity, allocated, reserved = usable_bytes(gpu), report.peak.allocated_bytes, report.max_reserved_bytes
    if allocated is None or reserved is None:
        raise MemtraceError(
            "torch told no bytes of this run: its allocator makes no events under the settings that the program chose",
            hint="backend:cudaMallocAsync and PYTORCH_NO_CUDA_MEMORY_CACHING are such settings",
            slug="predict-no-gpu",
        )
    interval = driverless_interval(rank, predicted_device(rank), gpu, allocated, reserved)
    return GpuVerdict(
        gpu=gpu,
        ran_as=gpu,
        capacity_bytes=capacity,
        fits=True,
        is_close=interval.device.high_bytes > gpu.memory_bytes,
        peak_allocated_bytes=allocated,
        max_reserved_bytes=reserved,
        context_bytes=gpu.memory_bytes - capacity,
        headroom_bytes=capacity - reserved,
        failed=None,
        failed_step=None,
        interval=interval,
        num_retries=rank.header.get("num_alloc_retries") or 0,
    )
