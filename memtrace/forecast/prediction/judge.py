"""What a predicted run says of a GPU: whether it fits, what it needs, how far that may be off, when it would run out.

In: the trace of a run on a GPU that is not there. Out: the trace with the allocator's part, and a verdict for each GPU.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from memtrace.analysis.report import analyze
from memtrace.analysis.results.report import Peak
from memtrace.errors import MemtraceError
from memtrace.forecast.gpus import Gpu
from memtrace.forecast.prediction.allocator_settings import settings_of
from memtrace.forecast.prediction.broken_off import broken_off
from memtrace.forecast.prediction.convolution_layers import layers_of
from memtrace.forecast.prediction.doubts import interval_of, made_room, on_gpu
from memtrace.forecast.prediction.notes import with_prediction
from memtrace.forecast.prediction.placed import Placed, place
from memtrace.forecast.prediction.results import (
    BY_META,
    Engine,
    GpuVerdict,
    Interval,
    Prediction,
    RankVerdict,
    StepPeak,
    fullest_of,
)
from memtrace.forecast.prediction.used_device import device_of
from memtrace.schema.names import Action
from memtrace.store.trace import RankTrace, Trace
from memtrace.units import format_bytes


def usable_bytes(gpu: Gpu) -> int:
    """Return what the allocator can take of a GPU: all but the context and the kernels that are loaded.

    Raises:
        MemtraceError: these alone take more than it has.
    """
    context = gpu.context.predicted_bytes
    if gpu.memory_bytes <= context:
        raise MemtraceError(
            f"{gpu.name}: the CUDA context alone takes {format_bytes(context)} of {format_bytes(gpu.memory_bytes)}",
            hint="--gpu takes the memory of the whole card, as 16GiB, or its name",
        )
    return gpu.memory_bytes - context


def capability_classes(gpus: Iterable[Gpu]) -> list[tuple[Gpu, tuple[Gpu, ...]]]:
    """Return the GPUs by compute capability, each class with the one that has the most memory, to run the program as.

    Torch chooses kernels by the capability: those of another class may need other memory.

    >>> from memtrace.forecast.gpus import gpus_named
    >>> found = capability_classes(gpus_named("a100-40gb,h100-80gb,a100-80gb"))
    >>> [(largest.name, len(members)) for largest, members in found]
    [('a100-80gb', 2), ('h100-80gb', 1)]
    """
    classes: dict[tuple[tuple[int, int], bool], list[Gpu]] = {}
    for gpu in gpus:
        classes.setdefault((gpu.capability, gpu.is_amd), []).append(gpu)
    return [(max(members, key=lambda one: one.memory_bytes), tuple(members)) for members in classes.values()]


def predicted_rank(trace: Trace) -> RankTrace:
    """Return the process that used the GPU.

    Raises:
        MemtraceError: none did, or it ended in an error before a step was done.
    """
    used = [rank for rank in trace.ranks if device_of(rank) is not None]
    if not used:
        raise MemtraceError(
            "the program put nothing on a GPU, so there is nothing to predict",
            hint='it has to use the device "cuda", as with --device cuda',
            slug="predict-no-gpu",
        )
    rank = max(used, key=lambda one: len(one.table("events")))
    if not _num_steps(rank) and not _ran_out(rank):
        raise MemtraceError(
            "the program ended before its first optimizer step: it cannot be predicted",
            hint=_last_words(rank),
            slug="predict-no-step",
        )
    return rank


def predicted_device(rank: RankTrace) -> str:
    """Return the GPU that the process of a prediction used."""
    device = device_of(rank)
    assert device is not None
    return device


def _num_steps(rank: RankTrace) -> int:
    steps = rank.table("steps")
    return int(((steps["step"] > 0) & ~steps.is_null("end_ns")).sum())


def _ran_out(rank: RankTrace) -> bool:
    return bool((rank.table("events")["action"] == rank.string_id(Action.OOM.value)).any())


def _last_words(rank: RankTrace) -> str | None:
    exception = rank.header.get("exception")
    if not isinstance(exception, dict):
        return None
    return f"it failed with {exception.get('type')}: {str(exception.get('message'))[:300]}"


def placed_trace(
    trace: Trace, gpu: Gpu, *, ran_as: Gpu | None = None, engine: Engine = BY_META
) -> tuple[Trace, GpuVerdict]:
    """Return a predicted trace with segments and addresses, and the verdict for a GPU.

    The trace says the range and the doubts as well: in its header, and as notes that a report shows.
    """
    rank = predicted_rank(trace)
    device = predicted_device(rank)
    verdict, placed = _judge(rank, device, gpu, ran_as or gpu, interval_of(rank, device, gpu))
    kept = placed.rank if placed.failed is None else broken_off(placed.rank, placed.failed.time_ns)
    header = {
        **kept.header,
        "devices": [_device(one, gpu, device) for one in kept.header.get("devices") or [{}]],
        # Who replays the trace takes equal blocks as they were taken here.
        "allocator_settings": {
            **(kept.header.get("allocator_settings") or {}),
            "equal_sizes": settings_of(rank).equal_sizes,
        },
    }
    return replace(trace, ranks=(with_prediction(replace(kept, header=header), verdict, engine),)), verdict


def _device(known: dict[str, object], gpu: Gpu, name: str) -> dict[str, object]:
    return {**known, "name": name, "kind": gpu.name, "capacity_bytes": gpu.memory_bytes}


def judge_all(trace: Trace, gpus: Sequence[Gpu], ran_as: Gpu) -> list[GpuVerdict]:
    """Return a verdict for each GPU of the compute capability that the program was told of."""
    rank = predicted_rank(trace)
    device = predicted_device(rank)
    interval = interval_of(rank, device, ran_as)
    # Beside the context, nothing in the range depends on the GPU.
    return [_judge(rank, device, gpu, ran_as, on_gpu(interval, gpu))[0] for gpu in gpus]


def _judge(rank: RankTrace, device: str, gpu: Gpu, ran_as: Gpu, interval: Interval) -> tuple[GpuVerdict, Placed]:
    capacity = usable_bytes(gpu)
    placed = place(rank, device, capacity_bytes=capacity, total_bytes=gpu.memory_bytes)
    fits = placed.failed is None
    interval = made_room(interval, placed.max_reserved_bytes) if fits and placed.num_retries else interval
    reserved = placed.max_reserved_bytes if fits else interval.reserved.predicted_bytes
    of_gpu = interval.device
    return GpuVerdict(
        gpu=gpu,
        ran_as=ran_as,
        capacity_bytes=capacity,
        fits=fits,
        is_close=of_gpu.high_bytes > gpu.memory_bytes if fits else of_gpu.low_bytes <= gpu.memory_bytes,
        peak_allocated_bytes=placed.peak_allocated_bytes if fits else interval.allocated.predicted_bytes,
        max_reserved_bytes=reserved,
        context_bytes=gpu.context.predicted_bytes,
        headroom_bytes=capacity - reserved,
        failed=placed.failed,
        failed_step=None if placed.failed is None else _step_at(rank, placed.failed.time_ns),
        interval=interval,
        num_retries=placed.num_retries if fits else 0,
    ), placed


def _step_at(rank: RankTrace, time_ns: int) -> int | None:
    steps = rank.table("steps")
    found = (steps["start_ns"] <= time_ns) & (steps.is_null("end_ns") | (steps["end_ns"] >= time_ns))
    numbers = steps["step"][found]
    return int(numbers[-1]) if len(numbers) else None


def prediction_of(
    placed: Trace,
    chosen: GpuVerdict,
    others: Sequence[GpuVerdict],
    *,
    refused: Sequence[tuple[str, str]],
    num_steps: int,
    world_size: int,
    ranks: Sequence[RankVerdict] = (),
    engine: Engine = BY_META,
) -> Prediction:
    """Return everything that is said of a run, from its trace with the allocator's part, and the verdicts.

    Of several `ranks`, it is the fullest.
    """
    (rank,) = placed.ranks
    device = predicted_device(rank)
    report = next(one for one in analyze(placed).ranks if one.device == device)
    versions = rank.header.get("versions") or {}
    steady = report.steady_state_peak
    return Prediction(
        command=tuple(placed.header.get("command") or ()),
        trace_path=placed.path,
        torch_version=versions.get("torch"),
        num_steps=num_steps,
        world_size=world_size,
        rank=fullest_of(ranks).rank if ranks else rank.rank or 0,
        ranks=tuple(ranks) if len(ranks) > 1 else (),
        engine=engine,
        chosen=chosen,
        others=tuple(sorted(others, key=lambda one: (one.gpu.memory_bytes, one.gpu.name))),
        refused=tuple(refused),
        first_step=_step_peak(report.first_step_peak),
        steady_state=None if steady is None or steady.predicted else _step_peak(steady),
        convolutions=layers_of(rank, chosen.peak_allocated_bytes),
        warnings=tuple((one.slug, one.message) for one in rank.warnings),
    )


def _step_peak(peak: Peak | None) -> StepPeak | None:
    if peak is None:
        return None
    return StepPeak(
        step=peak.step,
        phase=peak.phase,
        allocated_bytes=peak.allocated_bytes or peak.requested_bytes or 0,
        reserved_bytes=peak.reserved_bytes,
        by_category={name: size for name, size in peak.by_category.items() if size},
    )
