"""The estimate of a training run: memory by category, phase by phase, with its doubt and what was assumed.

In: `ModelSpec`, `Run`, `Layout`, a capacity. Out: `Estimate`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from memtrace.errors import MemtraceError
from memtrace.forecast.estimation.two_stacks import about_two_stacks, check_two_stacks, encoder_terms
from memtrace.forecast.memory.activations import activation_terms
from memtrace.forecast.memory.countable import check_countable
from memtrace.forecast.memory.kept_by_kernels import can_cache
from memtrace.forecast.memory.layout import RECOMPUTE, Layout, Run
from memtrace.forecast.memory.phases import ACTIVATION, TEMPORARY, Moment, moments
from memtrace.forecast.memory.reserve import simulated_reserve
from memtrace.forecast.memory.sharding import rank_model
from memtrace.forecast.model.adapters import Adapter, check_adapter, trained_tensors
from memtrace.forecast.model.parameters import active_parameters, num_parameters
from memtrace.forecast.model.spec import ModelSpec
from memtrace.forecast.results import Estimate, PhaseEstimate
from memtrace.units import format_bytes

CPU_DOUBT_PCT = 3
"""Of activations whose kernels were compared with models that run: the CPU's."""
CUDA_DOUBT_PCT = 8
"""Of activations on CUDA, whose kernels are known from source code only."""
EXPERTS_DOUBT_PCT = 15
"""Of activations of experts, whose dispatch differs between implementations."""
ASSUMED_SHAPE_DOUBT_PCT = 30
"""Of activations of a model of which only the number of parameters is known."""
TEMPORARY_DOUBT_PCT = 50


def estimate(
    spec: ModelSpec, run: Run, layout: Layout, *, capacity_bytes: int | None = None, is_assumed_shape: bool = False
) -> Estimate:
    """Return the estimate of the fullest pipeline stage; `is_assumed_shape` widens its range.

    Raises:
        MemtraceError: the layout cannot be, for this model.
    """
    check_layout(spec, run, layout)
    longest = run.sequence if spec.encoder is None else max(run.sequence, run.source)
    tokens = run.micro_batch * longest
    check_countable(spec, tokens=tokens, sequence=longest, has_scores=run.attention != "flash")
    phases, is_last = _fullest_stage(spec, run, layout)
    peak = max(phases, key=lambda one: one.peak_bytes)
    overhead = simulated_reserve(spec, run, layout).overhead_bytes if run.backend == "cuda" else None
    low, high = _range(spec, run, peak.by_category, overhead, is_assumed_shape=is_assumed_shape)
    cache = _cache_bytes(spec, run, layout, peak.peak_bytes)
    padding = _padding_bytes(spec, run, layout, peak.peak_bytes)
    low, high = low + min(cache, 0), high + max(cache, 0) + padding
    model = rank_model(spec, run, layout, is_last=is_last)
    terms = activation_terms(spec, run, layout)
    layer_terms = {name: int(size) for name, size in (terms.moe_layer or terms.dense_layer).items() if size}
    return Estimate(
        model=spec.name,
        num_parameters=num_parameters(spec),
        active_parameters=active_parameters(spec),
        world_size=int(layout.world_size),
        settings=_settings(spec, run, layout),
        phases=tuple(phases),
        peak=peak,
        low_bytes=low,
        high_bytes=high,
        reserved_bytes=None if overhead is None else peak.peak_bytes + overhead,
        capacity_bytes=capacity_bytes,
        fits=_fits(low, high, capacity_bytes),
        assumptions=(
            *about_two_stacks(spec, run, padding),
            *_about_the_cache(cache),
            *_assumptions(spec, run, layout, is_last=is_last, is_assumed_shape=is_assumed_shape),
        ),
        layer_terms=layer_terms | encoder_terms(spec, run, layout),
        gradient_bytes=int(model.gradients + model.accumulated_gradients),
        state_bytes=int(model.states),
    )


def _fullest_stage(spec: ModelSpec, run: Run, layout: Layout) -> tuple[list[PhaseEstimate], bool]:
    """Return the phases of the fullest pipeline stage, and whether that is the last of several."""
    stages = (False, True) if layout.pp > 1 else (False,)
    candidates = [_phases(spec, run, layout, is_last=is_last) for is_last in stages]
    phases = max(candidates, key=lambda found: max(one.peak_bytes for one in found))
    return phases, len(stages) > 1 and phases is candidates[1]


def _cache_bytes(spec: ModelSpec, run: Run, layout: Layout, peak: int) -> int:
    """Return how much higher the peak is if a cache of keys and values is filled; 0 where the run says whether it is.

    Negative where the copies in the cache let a larger matrix go (GPT-NeoX, Phi-3).
    """
    if run.caches_kv is not None or not can_cache(spec, run):
        return 0
    phases, _ = _fullest_stage(spec, replace(run, caches_kv=True), layout)
    return max(one.peak_bytes for one in phases) - peak


def _padding_bytes(spec: ModelSpec, run: Run, layout: Layout, peak: int) -> int:
    """Return how much higher the peak is if the encoder's sequences are padded."""
    if spec.encoder is None or run.is_padded:
        return 0
    phases, _ = _fullest_stage(spec, replace(run, is_padded=True), layout)
    return max(one.peak_bytes for one in phases) - peak


def check_layout(spec: ModelSpec, run: Run, layout: Layout) -> None:
    """Raise `MemtraceError` for a layout that no launcher would accept."""
    sizes = {"dp": layout.dp, "tp": layout.tp, "pp": layout.pp, "cp": layout.cp, "ep": layout.ep}
    sizes |= {"micro-batch": run.micro_batch, "sequence": run.sequence, "accumulation": run.accumulation}
    sizes |= {"source sequence": run.source}
    for name, size in sizes.items():
        if not 1 <= size < 2**31:
            raise MemtraceError(f"{name} must be at least 1, not {size}")
    if layout.zero not in (0, 1, 2, 3):
        raise MemtraceError(f"a ZeRO stage is 0, 1, 2 or 3, not {layout.zero}")
    if spec.num_heads % layout.tp:
        raise MemtraceError(f"{spec.num_heads} heads cannot be divided among {layout.tp} tensor-parallel ranks")
    if layout.pp > spec.num_layers:
        raise MemtraceError(f"{spec.num_layers} layers cannot fill {layout.pp} pipeline stages")
    check_two_stacks(spec, run, layout)
    if run.adapter is not None:
        check_adapter(spec, run.adapter, run.precision)
        if layout.zero or layout.world_size != layout.dp:
            raise MemtraceError("adapters are estimated on one GPU or under DistributedDataParallel (--dp) alone")
    if layout.ep > 1 and (not spec.num_experts or spec.num_experts % layout.ep or layout.dp * layout.cp % layout.ep):
        hint = "expert parallelism divides the experts, and the data-parallel ranks"
        raise MemtraceError(f"ep = {layout.ep} does not fit this model and layout", hint=hint)


def _phases(spec: ModelSpec, run: Run, layout: Layout, *, is_last: bool) -> list[PhaseEstimate]:
    """Return the fullest moment of each phase, in the first step and in the steady state."""
    found = []
    for step, steady in (("first", False), ("steady", True)):
        points = moments(spec, run, layout, is_last=is_last, steady=steady)
        for phase in dict.fromkeys(one.phase for one in points):
            fullest = max((one for one in points if one.phase == phase), key=lambda one: int(one.num_bytes))
            found.append(_phase(step, fullest))
    return found


def _phase(step: str, moment: Moment) -> PhaseEstimate:
    by_category = {name: int(size) for name, size in moment.by_category.items() if size}
    return PhaseEstimate(
        step=step,
        phase=moment.phase,
        where=moment.where,
        peak_bytes=sum(by_category.values()),
        by_category=by_category,
    )


def _range(
    spec: ModelSpec, run: Run, by_category: Mapping[str, int], overhead: int | None, *, is_assumed_shape: bool
) -> tuple[int, int]:
    """Return least and most bytes in which the peak is expected."""
    percent = CPU_DOUBT_PCT if run.backend == "cpu" else CUDA_DOUBT_PCT
    percent = max(percent, EXPERTS_DOUBT_PCT if spec.num_moe_layers else 0)
    percent = max(percent, ASSUMED_SHAPE_DOUBT_PCT if is_assumed_shape else 0)
    moving = by_category.get(ACTIVATION, 0), by_category.get(TEMPORARY, 0)
    doubt = (percent * moving[0] + TEMPORARY_DOUBT_PCT * moving[1]) // 100
    total = sum(by_category.values())
    if overhead is None:
        return total - doubt, total + doubt
    context = run.context
    less, more = context.predicted_bytes - context.low_bytes, context.high_bytes - context.predicted_bytes
    return total - doubt - less, total + doubt + more + overhead


def _fits(low: int, high: int, capacity: int | None) -> bool | None:
    if capacity is None:
        return None
    if high <= capacity:
        return True
    return None if low <= capacity else False


def _settings(spec: ModelSpec, run: Run, layout: Layout) -> dict[str, object]:
    sequences = {"sequence": run.sequence}
    if spec.encoder is not None:
        sequences = {"sequence": run.source, "target_sequence": run.sequence}
    return {
        "micro_batch": run.micro_batch,
        **sequences,
        "accumulation": run.accumulation,
        "precision": run.precision.name,
        "optimizer": run.optimizer.name,
        "attention": run.attention,
        "recompute": RECOMPUTE[run.recompute],
        "loss": run.loss,
        "backend": run.backend,
        "dp": layout.dp,
        "tp": layout.tp,
        "pp": layout.pp,
        "cp": layout.cp,
        "ep": layout.ep,
        "zero": layout.zero,
        "sequence_parallel": layout.sequence_parallel,
    }


def _about_adapters(spec: ModelSpec, adapter: Adapter) -> str:
    number = sum(one.copies * one.numel for one in trained_tensors(spec, adapter))
    frozen = "" if adapter.base == "plain" else f"; the matrices of the layers are kept in {adapter.base}"
    return f"{number:,} parameters are trained, adapters of rank {adapter.rank}, and the model is frozen{frozen}."


def _about_the_cache(num_bytes: int) -> list[str]:
    if not num_bytes:
        return []
    word = "more" if num_bytes > 0 else "less"
    return [
        f"No cache of keys and values is filled (use_cache off, as the Trainer of transformers 5 sets it); a loop that "
        f"leaves it on needs {format_bytes(abs(num_bytes))} {word}, which the range holds."
    ]


def _assumptions(spec: ModelSpec, run: Run, layout: Layout, *, is_last: bool, is_assumed_shape: bool) -> list[str]:
    found = [] if run.adapter is None else [_about_adapters(spec, run.adapter)]
    if is_assumed_shape:
        found.append(
            f"Only the number of parameters is known: activations are those of a Llama-like model of {spec.num_layers} "
            f"layers and a hidden size of {spec.hidden}."
        )
    if run.backend == "cuda":
        found.append(
            f"Context and loaded kernels take {format_bytes(run.context.predicted_bytes)} "
            f"({format_bytes(run.context.low_bytes)} to {format_bytes(run.context.high_bytes)}), {run.context.source}; "
            "cuBLAS 32 MiB; each communicator of NCCL 256 MiB."
        )
        found.append("The upper end of the range holds what the allocator, by its model, reserves in default settings.")
        found.append("What CUDA kernels keep for backward is known from source code, not from recordings.")
        if not run.is_fused and run.optimizer.temporary_tensors:
            found.append(
                "The optimizer runs with foreach, torch's default on a GPU: one temporary as large as a state."
            )
    if layout.dp * layout.cp > 1 and layout.zero == 0:
        kept = "are views of" if layout.bucket_view else "are copied into"
        found.append(f"Gradients {kept} the buckets of DistributedDataParallel (gradient_as_bucket_view).")
    if layout.dp * layout.cp > 1 and layout.zero >= 3:
        found.append("FSDP gathers a layer and prefetches the next; embedding and head stay gathered.")
    if layout.tp > 1:
        with_sequence = "with" if layout.sequence_parallel else "without"
        found.append(f"Tensor parallelism runs {with_sequence} sequence parallelism.")
    if layout.pp > 1:
        name = "last" if is_last else "first"
        found.append(f"The schedule is 1F1B; the numbers are those of the {name} stage, which is the fullest.")
    if spec.num_moe_layers:
        found.append("Tokens are spread evenly over the experts; dispatch buffers are not counted.")
    if run.attention == "flash" and spec.caps_scores:
        found.append("The attention kernel is assumed to cap the scores itself.")
    if spec.max_positions is not None and run.sequence > spec.max_positions:
        found.append(f"The sequence is longer than the {spec.max_positions} positions that the model states.")
    found.append("What the program holds itself (data on the device, metrics, other models) is not in it.")
    return found
