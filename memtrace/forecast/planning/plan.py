"""The plan: every layout of a model on some GPUs, with its memory and its time, ranked.

In: `ModelSpec`, a `Question`. Out: `Plan`. Memory and time of all layouts are evaluated at once, with the formulas that
`estimate` runs once.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from memtrace.errors import MemtraceError
from memtrace.forecast.gpus import Gpu, lacks_8bit
from memtrace.forecast.memory.activations import BY_OPERATOR
from memtrace.forecast.memory.countable import check_countable
from memtrace.forecast.memory.layout import FRAMEWORK_LOSSES, RECOMPUTE, Run
from memtrace.forecast.memory.optimizers import OPTIMIZERS, Optimizer
from memtrace.forecast.model.parameters import num_parameters
from memtrace.forecast.model.precision import PRECISIONS, Precision
from memtrace.forecast.model.spec import ModelSpec
from memtrace.forecast.planning.costs import RESERVE_PCT, Costs, costs, joined
from memtrace.forecast.planning.doubt import NO, WORDS, YES, beyond_published, doubt_of, verdicts
from memtrace.forecast.planning.launch_settings import launch_settings
from memtrace.forecast.planning.layouts import Grid, layout_grid
from memtrace.forecast.planning.reasons import reasons
from memtrace.forecast.results import Calibration, Plan, PlanCloud, PlanRow
from memtrace.forecast.step_time.links import Links, hidden_by_products
from memtrace.forecast.step_time.speed import Speed, scaled, speed_of
from memtrace.forecast.step_time.step import COMMUNICATION, COMPUTATION

MAX_DRAWN = 4000
"""Layouts in the chart: as many as the playbook's sweep had."""
INTERLEAVE = frozenset({"none", "megatron", "torchtitan"})
"""Frameworks that have interleaved schedules."""
EQUAL_SPEED = 0.005
"""Share by which two throughputs may differ and count as equal."""
_CHUNK = 1 << 16
"""Layouts evaluated at once: more would leave the caches."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What a plan is asked for."""

    gpus: int
    gpu: Gpu
    global_tokens: int
    """Tokens of one optimizer step."""
    sequence: int
    precision: Precision = PRECISIONS["bf16-mixed"]
    optimizer: Optimizer = OPTIMIZERS["adamw"]
    attention: str = "flash"
    dropout: float | None = None
    framework: str = "none"
    loss: str | None = None
    """How the loss is computed; `None` is the framework's way."""
    speed: Speed | None = None
    """`None` is the framework's."""
    known: Calibration | None = None
    """What measured runs say of the cluster."""

    @property
    def used_speed(self) -> Speed:
        """The speed that is given, or else that of the framework, as measured runs scale it."""
        speed = speed_of(self.framework) if self.speed is None else self.speed
        return speed if self.known is None else scaled(speed, self.known.time_factor)

    @property
    def global_sequences(self) -> int:
        """Sequences of one optimizer step."""
        return self.global_tokens // self.sequence


def make_plan(spec: ModelSpec, question: Question, *, top: int = 10) -> Plan:
    """Return the ranked layouts; `top` of them in words.

    Raises:
        MemtraceError: the question has no layout.
    """
    _check(question)
    spec.check_one_stack("layouts")
    tokens, has_scores = question.global_sequences * question.sequence, question.attention != "flash"
    check_countable(spec, tokens=tokens, sequence=question.sequence, has_scores=has_scores)
    grid = layout_grid(
        spec,
        gpus=question.gpus,
        global_sequences=question.global_sequences,
        sequence=question.sequence,
        has_quadratic=question.attention == "explicit" or question.framework in BY_OPERATOR,
        interleaves=question.framework in INTERLEAVE,
        gpus_per_node=question.gpu.gpus_per_node,
    )
    found = evaluate(spec, question, grid)
    fits = found.needed <= question.gpu.memory_bytes
    doubt = doubt_of(question.framework, question.known, is_8bit=question.precision.is_8bit)
    said = verdicts(found.needed, question.gpu.memory_bytes, doubt)
    order = _ranked(grid, found, fits, said)
    best = order[:top]
    frontier = _pareto(found, fits)
    return Plan(
        model=spec.name,
        num_parameters=num_parameters(spec),
        gpus=question.gpus,
        gpu=question.gpu.name,
        capacity_bytes=question.gpu.memory_bytes,
        global_tokens=question.global_sequences * question.sequence,
        sequence=question.sequence,
        num_layouts=len(grid),
        num_fitting=int(fits.sum()),
        rows=tuple(_row(grid, found, said, int(at), spec, question) for at in best),
        pareto=tuple(_row(grid, found, said, int(at), spec, question) for at in frontier),
        cloud=_cloud(grid, found, fits, order),
        assumptions=_assumptions(spec, question),
    )


def evaluate(spec: ModelSpec, question: Question, grid: Grid) -> Costs:
    """Return memory and time of every layout of a grid."""
    chunks = [grid.take(np.arange(start, min(start + _CHUNK, len(grid)))) for start in range(0, len(grid), _CHUNK)]
    speed, framework = question.used_speed, question.framework
    factor = 1.0 if question.known is None else question.known.memory_factor
    return joined(
        [
            costs(spec, run_of(question, one), one.layout(spec, framework), question.gpu, speed, memory_factor=factor)
            for one in chunks
        ]
    )


def run_of(question: Question, grid: Grid) -> Run:
    """Return how training is set in the layouts of a grid."""
    return Run(
        micro_batch=grid.micro_batch,
        sequence=question.sequence,
        accumulation=grid.accumulation,
        recompute=grid.recompute,
        precision=question.precision,
        optimizer=question.optimizer,
        attention=question.attention,
        dropout=question.dropout,
        loss=question.loss or FRAMEWORK_LOSSES.get(question.framework, "plain"),
        framework=question.framework,
        is_fused=True,
        context=question.gpu.context,
    )


def _check(question: Question) -> None:
    if question.gpus < 1 or question.sequence < 1:
        raise MemtraceError("a plan needs at least one GPU and one token")
    if question.gpus > 2**20 or question.sequence > 2**24 or question.global_tokens > 2**40:
        raise MemtraceError("that is more than a plan can count")
    if question.precision.is_8bit and lacks_8bit(question.gpu):
        raise MemtraceError(
            f"{question.gpu.name} has no FP8, which {question.precision.name} is for",
            hint="choose another --precision, or a GPU that has it, as h100-80gb",
        )
    if question.global_sequences < 1:
        raise MemtraceError(
            f"a global batch of {question.global_tokens:,} tokens holds no sequence of {question.sequence:,}",
            hint="raise --gbs-tokens, or shorten --sequence",
        )


def _ranked(grid: Grid, found: Costs, fits: npt.NDArray[np.bool_], said: npt.NDArray[np.str_]) -> npt.NDArray[np.intp]:
    """Return the layouts, best first: those that surely fit, those that may, those that do not; each by throughput.

    Throughputs within half a per cent of each other count as equal: the model of time knows no better. Then less memory
    wins, by whole GiB, then fewer kinds of parallelism, then less accumulation (the playbook prefers data parallelism),
    then ZeRO-0 or 1 over 2 or 3. Of those that do not fit the nearest comes first.
    """
    speed = np.round(np.log(found.throughput) / EQUAL_SPEED)
    kinds = np.zeros(len(grid), np.int64)
    for axis in (grid.cp, grid.ep, grid.pp, grid.tp, grid.virtual_stages):
        kinds += axis > 1
    memory = -(-found.peak // 2**30)
    lacking = np.where(said == NO, -(-found.needed // 2**30), 0)
    return np.lexsort(
        (grid.zero > 1, grid.accumulation, kinds, memory, -speed, lacking, said != YES, said == NO, ~fits)
    )


def _pareto(found: Costs, fits: npt.NDArray[np.bool_]) -> npt.NDArray[np.intp]:
    """Return the fitting layouts that no other beats in both memory and throughput, least memory first."""
    rows = np.flatnonzero(fits)
    rows = rows[np.lexsort((-found.throughput[rows], found.peak[rows]))]
    if not len(rows):
        return rows
    before = np.concatenate([[-np.inf], np.maximum.accumulate(found.throughput[rows])[:-1]])
    return rows[found.throughput[rows] > before]


def _row(grid: Grid, found: Costs, said: npt.NDArray[np.str_], at: int, spec: ModelSpec, question: Question) -> PlanRow:
    numbers = {one.name: int(getattr(grid, one.name)[at]) for one in fields(Grid)}
    recompute = RECOMPUTE[numbers.pop("recompute")]
    more = {"sequence": question.sequence, "global_sequences": question.global_sequences}
    row = PlanRow(
        **numbers,
        recompute=recompute,
        peak_bytes=int(found.peak[at]),
        step_time_ns=_ns(found.seconds[at]),
        compute_ns=_ns(sum(found.time[name][at] for name in COMPUTATION)),
        communication_ns=_ns(sum(found.time[name][at] for name in COMMUNICATION)),
        bubble_ns=_ns(found.time["bubble"][at]),
        tokens_per_second_per_gpu=round(float(found.throughput[at]), 3),
        mfu=round(float(found.mfu[at]), 5),
        fits=bool(found.needed[at] <= question.gpu.memory_bytes),
        verdict=WORDS[str(said[at])],
        reasons=(),
        settings=launch_settings(numbers | more, recompute),
    )
    return replace(row, reasons=reasons(row, grid, found.needed, at, question.gpu, question.framework))


def _ns(seconds: float) -> int:
    return round(float(seconds) * 1e9)


def _cloud(grid: Grid, found: Costs, fits: npt.NDArray[np.bool_], order: npt.NDArray[np.intp]) -> PlanCloud:
    """Return the layouts of the chart: the best, and evenly many of those below."""
    if len(order) > MAX_DRAWN:
        best = order[: MAX_DRAWN // 2]
        rest = order[MAX_DRAWN // 2 :]
        step = -(-len(rest) // (MAX_DRAWN // 2))
        order = np.concatenate([best, rest[::step]])
    columns: dict[str, tuple[Any, ...]] = {
        one.name: tuple(getattr(grid, one.name)[order].tolist()) for one in fields(Grid)
    }
    columns |= {
        "recompute": tuple(RECOMPUTE[at] for at in grid.recompute[order].tolist()),
        "peak_bytes": tuple(found.peak[order].tolist()),
        "tokens_per_second_per_gpu": tuple(np.round(found.throughput[order], 2).tolist()),
        "mfu": tuple(np.round(found.mfu[order], 4).tolist()),
        "fits": tuple(fits[order].tolist()),
    }
    return PlanCloud(columns=columns)


def _assumptions(spec: ModelSpec, question: Question) -> tuple[str, ...]:
    gpu, speed = question.gpu, question.used_speed
    later = speed.later_share if gpu.capability >= (9, 0) else 1.0
    hidden = hidden_by_products(question.framework, Links(gpu=gpu, speed=speed))
    return (
        f"Large matrix products reach {speed.compute_share * later:.0%} of {gpu.flops / 1e12:.0f} TFLOP/s; "
        f"{speed.half_tokens:.0f} tokens a micro-batch, or matrices {speed.half_width:.0f} wide, half of that.",
        f"Collectives reach {speed.bandwidth_share:.0%} of {gpu.intra_bytes_s / 1e9:.0f} GB/s inside a node of "
        f"{gpu.gpus_per_node}, and of {gpu.inter_bytes_s / 1e9:.0f} GB/s between nodes for each GPU of a group.",
        f"Of tensor-parallel communication {f'{hidden:.0%}' if hidden else 'nothing'} is hidden behind computation; of "
        f"what data and context parallelism could hide behind it {speed.overlap:.0%} is.",
        "The schedule is 1F1B, interleaved where a rank has several stages; the optimizer runs fused.",
        "Without ZeRO, gradients are views of the communication buckets.",
        f"A layout needs its peak and {RESERVE_PCT} % of what comes and goes, for the allocator; it is close where "
        "that may fit or not, by as much as published runs were off.",
        *_learned(question),
        *_beyond(spec, question),
    )


def _learned(question: Question) -> tuple[str, ...]:
    """Return what measured runs changed, and what they did to the range of the throughput."""
    known = question.known
    if known is None:
        return ()
    before, after = doubt_of(question.framework).throughput, doubt_of(question.framework, known).throughput
    return (
        f"Measured runs ({known.runs}) took {known.time_factor:.2f} times the predicted time and "
        f"{known.memory_factor:.2f} times the memory: kernels, code and links are scaled so.",
        f"Published throughputs were {before[0]:.0%} to {before[1]:.0%} of what was predicted; after one run of the "
        f"same kind {after[0]:.0%} to {after[1]:.0%}.",
    )


def _beyond(spec: ModelSpec, question: Question) -> tuple[str, ...]:
    """Return the sentence that says in which respects no published run is like any layout of the plan."""
    found = beyond_published(
        question.framework,
        question.gpu,
        parameters=num_parameters(spec),
        gpus=question.gpus,
        sequence=question.sequence,
        tp=1,
        pp=1,
        cp=1,
        has_experts=bool(spec.num_moe_layers),
    )
    return (f"No published run that this was held against has {', '.join(found)}.",) if found else ()
