"""What a predicted run says of its memory, for the search of `fit`.

In: the trace of a run on a GPU that is not there. Out: `Measured`, by the same verdict as that of `memtrace predict`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from memtrace.analysis.results.report import RankReport
from memtrace.errors import MemtraceError
from memtrace.forecast.fitting.measure import needs_of, num_steps_of
from memtrace.forecast.fitting.results import Measured
from memtrace.forecast.gpus import Gpu
from memtrace.forecast.prediction.driverless import failed_request, report_of
from memtrace.forecast.prediction.judge import predicted_device, predicted_rank, usable_bytes
from memtrace.forecast.prediction.placed import place
from memtrace.store.trace import Trace


def measure_predicted(trace: Trace, gpu: Gpu, num_steps: int) -> Measured:
    """Return what a run on meta tensors needs of a GPU, the context included.

    It needs at most the memory of the GPU where the run goes through there, if only by giving cached memory back, and
    more where a request fails, in whichever step.

    Raises:
        MemtraceError: it used no GPU, or made fewer steps.
    """
    rank = predicted_rank(trace)
    device = predicted_device(rank)
    on_gpu = place(rank, device, capacity_bytes=usable_bytes(gpu), total_bytes=gpu.memory_bytes)
    fits = on_gpu.failed is None
    placed = on_gpu if fits else place(rank, device, capacity_bytes=None)
    return _measured(report_of(trace, placed.rank), gpu, num_steps, fits=fits)


def measure_driverless(trace: Trace, gpu: Gpu, num_steps: int, run_without_end: Callable[[], Trace]) -> Measured:
    """Return the same of a run on torch's own CUDA code, which ran out of memory by itself where it did.

    `run_without_end` runs the program once more then, on a GPU with endless memory.

    Raises:
        MemtraceError: it used no GPU, or made fewer steps.
    """
    rank = predicted_rank(trace)
    report = report_of(trace, rank)
    fits = failed_request(trace, rank, report) is None
    if not fits:
        larger = run_without_end()
        report = report_of(larger, predicted_rank(larger))
    return _measured(report, gpu, num_steps, fits=fits)


def _measured(report: RankReport, gpu: Gpu, num_steps: int, *, fits: bool) -> Measured:
    # What else is held is known of the GPU: the context, and not of a recording.
    found = needs_of(report, num_steps, with_others=False)
    if found is None or found.needed_bytes is None:
        made = num_steps_of((report,))
        raise MemtraceError(f"it ended after {made} of {num_steps} steps of its optimizer: let it train longer")
    needed = found.needed_bytes + gpu.context.predicted_bytes
    needed = min(needed, gpu.memory_bytes) if fits else max(needed, gpu.memory_bytes + 1)
    return replace(found, needed_bytes=needed, device_bytes=gpu.memory_bytes)
