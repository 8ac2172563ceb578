"""What a predicted run says of its memory, for the search of `fit`.

In: the trace of a run on a GPU that is not there. Out: `Measured`, by the same verdict as that of `memtrace predict`.
"""

from __future__ import annotations

from dataclasses import replace

from memtrace.analysis.report import analyze
from memtrace.errors import MemtraceError
from memtrace.forecast.fitting.measure import measure, num_steps_of
from memtrace.forecast.fitting.results import Measured
from memtrace.forecast.gpus import Gpu
from memtrace.forecast.prediction.judge import DEVICE, predicted_rank, usable_bytes
from memtrace.forecast.prediction.placed import place
from memtrace.store.trace import Trace


def measure_predicted(trace: Trace, gpu: Gpu, num_steps: int) -> Measured:
    """Return what a predicted run needs of a GPU, the context included.

    It needs at most the memory of the GPU where the run goes through there, if only by giving cached memory back, and
    more where a request fails, in whichever step.

    Raises:
        MemtraceError: it used no GPU, or made fewer steps.
    """
    rank = predicted_rank(trace)
    on_gpu = place(rank, DEVICE, capacity_bytes=usable_bytes(gpu), total_bytes=gpu.memory_bytes)
    fits = on_gpu.failed is None
    placed = on_gpu if fits else place(rank, DEVICE, capacity_bytes=None)
    report = analyze(replace(trace, ranks=(placed.rank,)), capacity_bytes=gpu.memory_bytes)
    found = measure(report, num_steps)
    if found is None or found.needed_bytes is None:
        made = num_steps_of(report)
        raise MemtraceError(f"it ended after {made} of {num_steps} steps of its optimizer: let it train longer")
    needed = found.needed_bytes + gpu.context.predicted_bytes
    needed = min(needed, gpu.memory_bytes) if fits else max(needed, gpu.memory_bytes + 1)
    return replace(found, needed_bytes=needed, device_bytes=gpu.memory_bytes)
