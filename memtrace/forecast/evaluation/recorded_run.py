"""A recorded run as a row of a table of measured layouts: how it was laid out, and what it took.

In: a `Trace` and its `Report`. Out: cells, as `calibration` reads them. What the recording tells stands in the row;
what it does not (the model, recomputation, the framework) is for options. What would have to be guessed is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from memtrace.analysis.results.ranks import Scheme
from memtrace.analysis.results.report import RankReport, Report
from memtrace.analysis.results.step_times import Throughput
from memtrace.errors import MemtraceError
from memtrace.forecast.gpus import GPUS
from memtrace.schema.gpu_cards import CARDS
from memtrace.schema.gpu_data_sheets import peak_flops
from memtrace.store.trace import Trace

_SAME_MEMORY = 0.06
"""Share by which the memory that drivers report of one kind of card differs, with and without error correction."""


def recorded_row(trace: Trace, report: Report) -> dict[str, Any]:
    """Return a recorded run as one row: its GPU and layout, tokens a second and GPU, and the peak.

    Tokens count once for all ranks that share them: those of tensor and pipeline parallelism.

    Raises:
        MemtraceError: the run was not on a GPU of the data sheets, its sequences are not known, or how its ranks share
            the work is not.
    """
    if report.main_rank is None or not report.ranks:
        raise MemtraceError("the recording holds no rank's memory", hint="calibrate with a run that was recorded whole")
    main = report.ranks[report.main_rank]
    if main.source == "predicted":
        raise MemtraceError("a prediction measures nothing", hint="calibrate with a recording of a real run")
    speed = _throughput(report)
    tokens, samples = (None, None) if speed is None else (speed.tokens_per_step, speed.samples_per_step)
    if speed is None or not tokens or not samples:
        raise MemtraceError(
            "the recording does not tell how many tokens a step had",
            hint="write a table with measured_tokens_per_second_per_gpu, see docs/plan.md",
        )
    axes = _axes(report)
    micro_batches = max((one.num_microbatches for one in main.steps if one.recorded), default=1) or 1
    if samples % micro_batches:
        raise MemtraceError(f"{samples} sequences a step cannot be divided among {micro_batches} micro-batches")
    peak = main.steady_state_peak or main.peak
    return {
        "gpu": _gpu(trace, main),
        "sequence": tokens // samples,
        "micro_batch": samples // micro_batches,
        "accumulation": micro_batches,
        **axes,
        "measured_tokens_per_second_per_gpu": tokens * 10**9 / speed.step_ns / (axes["tp"] * axes["pp"]),
        "measured_peak_bytes": peak.requested_bytes if peak.allocated_bytes is None else peak.allocated_bytes,
    }


def _throughput(report: Report) -> Throughput | None:
    found = [one.step_times.throughput for one in report.ranks if one.step_times is not None]
    return next((one for one in found if one is not None and one.tokens_per_step), None)


def _axes(report: Report) -> dict[str, int]:
    """Return dp, tp, pp and zero of a run.

    Raises:
        MemtraceError: the ranks do not tell.
    """
    ranks = report.ranks_overview
    world = 1 if ranks is None else ranks.world_size or len(ranks.ranks)
    schemes = () if ranks is None else ranks.schemes
    tp, pp = (_factor(schemes, kind) for kind in ("tp", "pp"))
    stages = [one.stage for one in schemes if one.kind in ("fsdp", "zero") and one.stage is not None]
    is_data_parallel = any(one.kind in ("ddp", "fsdp", "zero", "replicated") for one in schemes)
    if world % (tp * pp) or (world > tp * pp and not is_data_parallel):
        raise MemtraceError(
            f"the recording does not tell how its {world:,} ranks share the work",
            hint="record all ranks, or write a table of measured layouts, see docs/plan.md",
        )
    return {"dp": world // (tp * pp), "tp": tp, "pp": pp, "zero": max(stages, default=0)}


def _factor(schemes: tuple[Scheme, ...], kind: str) -> int:
    for one in schemes:
        if one.kind == kind:
            if one.factor is None:
                raise MemtraceError(
                    f"{one.name} was recorded, but not over how many ranks",
                    hint="write a table of measured layouts, see docs/plan.md",
                )
            return one.factor
    return 1


def _gpu(trace: Trace, rank: RankReport) -> str:
    """Return which GPU of the data sheets a rank ran on: of the same throughput, and of the same memory.

    Raises:
        MemtraceError: none.
    """
    recorded: Mapping[str, Any] = next(
        (
            one
            for each in trace.ranks
            if each.header.get("rank") == rank.rank
            for one in each.header.get("devices") or []
            if one.get("name") == rank.device
        ),
        {},
    )
    kind, capacity = str(recorded.get("kind") or rank.device), rank.capacity_bytes
    flops = peak_flops(kind, "float16")
    near = {
        name: abs(CARDS[name].memory_bytes - capacity) / CARDS[name].memory_bytes
        for name, gpu in GPUS.items()
        if capacity is not None and flops is not None and gpu.flops == flops
    }
    best = min(near, key=lambda name: near[name], default=None)
    if best is None or near[best] > _SAME_MEMORY:
        raise MemtraceError(
            f"the run was recorded on {kind[:60]!r}, which is none of the data sheets' GPUs",
            hint="calibrate with a run on one of " + ", ".join(GPUS),
        )
    return best
