"""What a predicted run says of a GPU: whether it fits, what it needs, and when it would run out of memory.

In: the trace of a run on a GPU that is not there. Out: the trace with the allocator's part, and a verdict for each GPU.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from memtrace.errors import MemtraceError
from memtrace.forecast.broken_off import broken_off
from memtrace.forecast.gpus import Gpu
from memtrace.forecast.placed import FailedRequest, Placed, place
from memtrace.forecast.sharding import CUDA_CONTEXT_BYTES
from memtrace.store.trace import RankTrace, Trace

CAPABILITIES = {
    "v100": (7, 0),
    "t4": (7, 5),
    "a10g": (8, 6),
    "l4": (8, 9),
    "l40s": (8, 9),
    "a100": (8, 0),
    "h100": (9, 0),
    "h200": (9, 0),
    "b200": (10, 0),
    "mi250x": (9, 0),
    "mi300x": (9, 4),
}
"""Compute capability by the first word of a GPU's name (NVIDIA's and AMD's tables)."""

DEVICE = "cuda:0"


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuVerdict:
    """Whether a run fits on a GPU."""

    gpu: Gpu
    capacity_bytes: int
    """Memory that torch can take: all but the context."""
    fits: bool
    peak_allocated_bytes: int
    """Of the whole run if it fits, else what it would need on a device without end."""
    max_reserved_bytes: int
    failed: FailedRequest | None
    failed_step: int | None
    """Step in which the request failed."""


def capability_of(gpu: Gpu) -> tuple[int, int]:
    """Return the compute capability of a GPU, that of an A100 for one of a stated size.

    >>> from memtrace.forecast.gpus import gpu_named
    >>> capability_of(gpu_named("h100-80gb")), capability_of(gpu_named("24GiB"))
    ((9, 0), (8, 0))
    """
    return CAPABILITIES.get(gpu.name.partition("-")[0], CAPABILITIES["a100"])


def usable_bytes(gpu: Gpu) -> int:
    """Return what the allocator can take of a GPU: all but the context and the kernels that are loaded."""
    return gpu.memory_bytes - CUDA_CONTEXT_BYTES


def predicted_rank(trace: Trace) -> RankTrace:
    """Return the process that used the GPU.

    Raises:
        MemtraceError: none did, or it ended in an error before a step was done.
    """
    used = [rank for rank in trace.ranks if rank.string_id(DEVICE) >= 0 and len(rank.table("events"))]
    if not used:
        raise MemtraceError(
            "the program put nothing on a GPU, so there is nothing to predict",
            hint='it has to use the device "cuda", as with --device cuda',
            slug="predict-no-gpu",
        )
    rank = max(used, key=lambda one: len(one.table("events")))
    if not _num_steps(rank):
        raise MemtraceError(
            "the program ended before its first optimizer step: it cannot be predicted",
            hint=_last_words(rank),
            slug="predict-no-step",
        )
    return rank


def _num_steps(rank: RankTrace) -> int:
    steps = rank.table("steps")
    return int(((steps["step"] > 0) & ~steps.is_null("end_ns")).sum())


def _last_words(rank: RankTrace) -> str | None:
    exception = rank.header.get("exception")
    if not isinstance(exception, dict):
        return None
    return f"it failed with {exception.get('type')}: {str(exception.get('message'))[:300]}"


def placed_trace(trace: Trace, gpu: Gpu) -> tuple[Trace, GpuVerdict]:
    """Return a predicted trace with segments and addresses, and the verdict for the GPU that it ran on."""
    rank = predicted_rank(trace)
    verdict, placed = _judge(rank, gpu)
    kept = placed.rank if placed.failed is None else broken_off(placed.rank, placed.failed.time_ns)
    header = {**kept.header, "devices": [_device(one, gpu) for one in kept.header.get("devices") or [{}]]}
    return replace(trace, ranks=(replace(kept, header=header),)), verdict


def _device(known: dict[str, object], gpu: Gpu) -> dict[str, object]:
    return {**known, "name": DEVICE, "kind": gpu.name, "capacity_bytes": gpu.memory_bytes}


def judge_all(trace: Trace, gpus: Iterable[Gpu]) -> list[GpuVerdict]:
    """Return a verdict for each GPU, for the run as it was: a kernel that another GPU would choose is not foreseen."""
    rank = predicted_rank(trace)
    return [_judge(rank, gpu)[0] for gpu in gpus]


def _judge(rank: RankTrace, gpu: Gpu) -> tuple[GpuVerdict, Placed]:
    capacity = usable_bytes(gpu)
    placed = place(rank, DEVICE, capacity_bytes=capacity)
    whole = placed if placed.failed is None else place(rank, DEVICE, capacity_bytes=None)
    return GpuVerdict(
        gpu=gpu,
        capacity_bytes=capacity,
        fits=placed.failed is None,
        peak_allocated_bytes=whole.peak_allocated_bytes,
        max_reserved_bytes=whole.max_reserved_bytes,
        failed=placed.failed,
        failed_step=None if placed.failed is None else _step_at(rank, placed.failed.time_ns),
    ), placed


def _step_at(rank: RankTrace, time_ns: int) -> int | None:
    steps = rank.table("steps")
    found = (steps["start_ns"] <= time_ns) & (steps.is_null("end_ns") | (steps["end_ns"] >= time_ns))
    numbers = steps["step"][found]
    return int(numbers[-1]) if len(numbers) else None
