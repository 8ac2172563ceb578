"""How fast a rank trains: tokens and samples a second, and model FLOPs utilisation where all it takes is known.

In: a recorded rank and its steps. Out: `Throughput`. Recording slows a step down, so steps that the trace does not hold
count where there are some: they were recorded without stacks or not at all. Else those count that it holds. The first
step is left out: it is not like the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median_low

from memtrace.analysis.results.step_times import ModelFlops, StepTime, Throughput
from memtrace.analysis.time.model_flops import NeededFlops, needed_flops
from memtrace.schema.gpu_data_sheets import peak_flops
from memtrace.store.trace import RankTrace

_MIN_LIGHT = 3
_NS = 10**9


def throughput(rank: RankTrace, steps: Sequence[StepTime]) -> Throughput | None:
    """Return how fast steps follow one another, and what goes through them; `None` without a step that counts."""
    later = [one for one in steps if one.step > 1 and one.step_ns > 0]
    light = [one for one in later if one.phases_ns is None]
    counted = light if len(light) >= _MIN_LIGHT else [one for one in later if one.phases_ns is not None]
    if not counted:
        return None
    step_ns = median_low(one.step_ns for one in counted)
    tokens, samples = (_same(steps, name) for name in ("tokens", "samples"))
    return Throughput(
        step_ns=step_ns,
        num_steps=len(counted),
        of_recorded=counted[0].phases_ns is not None,
        tokens_per_step=tokens,
        samples_per_step=samples,
        tokens_per_second=None if tokens is None else tokens * _NS / step_ns,
        samples_per_second=None if samples is None else samples * _NS / step_ns,
        flops=None if tokens is None else _flops(rank, steps, tokens, step_ns),
    )


def _same(steps: Sequence[StepTime], name: str) -> int | None:
    """Return what goes through a step; `None` where that is not known, or not the same in each."""
    known = {getattr(one, name) for one in steps if one.phases_ns is not None}
    return known.pop() if len(known) == 1 else None


def _flops(rank: RankTrace, steps: Sequence[StepTime], tokens: int, step_ns: int) -> ModelFlops | None:
    device = _device(rank)
    precision, is_autocast = _precision(rank)
    if device is None or precision is None:
        return None
    last = max(one.step for one in steps if one.tokens is not None)
    peak = peak_flops(device, precision)
    needed = None if peak is None else needed_flops(rank, last, tokens)
    if peak is None or needed is None:
        return None
    per_step = needed.matmul_flops + (needed.attention_flops or 0)
    return ModelFlops(
        per_step=per_step,
        matmul_parameters=needed.matmul_parameters,
        attention_per_step=needed.attention_flops,
        peak_flops=peak,
        device=device,
        precision=precision,
        utilization=per_step * _NS / (step_ns * peak),
        assumptions=_assumptions(needed, precision, is_autocast=is_autocast),
    )


def _device(rank: RankTrace) -> str | None:
    """Return the name of the one kind of GPU that a rank runs on."""
    names = {str(one.get("kind")) for one in rank.header.get("devices") or [] if one.get("name") != "cpu"}
    return names.pop() if len(names) == 1 else None


def _precision(rank: RankTrace) -> tuple[str | None, bool]:
    """Return the precision of matrix products, and whether autocast says so."""
    autocast = rank.header.get("autocast_dtypes") or []
    if autocast:
        return (str(autocast[0]), True) if len(autocast) == 1 else (None, True)
    owners = rank.table("owners")
    parameters = owners["category"] == rank.string_id("parameter")
    dtypes = {rank.text(dtype) for dtype in set(owners["dtype"][parameters].tolist())}
    return (dtypes.pop(), False) if len(dtypes) == 1 else (None, False)


def _assumptions(needed: NeededFlops, precision: str, *, is_autocast: bool) -> tuple[str, ...]:
    """Return what the figure takes for granted, in sentences."""
    found = [
        f"6 operations a token for each of {needed.matmul_parameters:,} parameters in matrices, "
        + ("the embedding that is the output layer included." if needed.shares_embedding else "embeddings left out."),
        "Attention scores are counted by their shapes, without the half that a causal mask saves."
        if needed.attention_flops is not None
        else "Attention scores are not counted: no fused attention kernel was seen.",
        "What activation checkpointing computes again is not counted.",
    ]
    source = "as under autocast" if is_autocast else "as the parameters are"
    tensor_cores = ", not TF32" if precision == "float32" else ""
    found.append(f"Peak of the data sheet, dense, for matrix products in {precision}{tensor_cores}, {source}.")
    return tuple(found)
