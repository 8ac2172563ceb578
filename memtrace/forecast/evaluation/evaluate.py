"""What given layouts need and how long their steps take: those of one model and GPU at once, as a plan does it.

In: `GivenLayout`s. Out: `EvaluatedLayout`s in the same order.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from memtrace.errors import MemtraceError
from memtrace.forecast.evaluation.columns import read_cells
from memtrace.forecast.evaluation.layouts import GivenLayout, given_layout
from memtrace.forecast.evaluation.measured import MEASURED, measured, without_measured
from memtrace.forecast.evaluation.table import read_table
from memtrace.forecast.gpus import Gpu
from memtrace.forecast.memory.countable import check_countable
from memtrace.forecast.memory.layout import Layout, Run
from memtrace.forecast.memory.sharding import context_bytes
from memtrace.forecast.model.parameters import num_parameters
from memtrace.forecast.model.spec import ModelSpec
from memtrace.forecast.planning.costs import SECOND, Costs, StageMemory, costs, has_fuller_second, stage_memory
from memtrace.forecast.planning.doubt import beyond_published, doubt_of, verdicts
from memtrace.forecast.results import Calibration, EvaluatedLayout
from memtrace.forecast.step_time.speed import scaled, speed_of
from memtrace.schema.workspaces import LARGE_CUBLAS_BYTES

_RUN_COLUMNS = ("micro_batch", "sequence", "accumulation", "recompute")
_LAYOUT_COLUMNS = ("dp", "tp", "pp", "virtual_stages", "group", "cp", "ep", "zero", "reshard")
_Key = tuple[ModelSpec, Gpu, Run, Layout]


def evaluate_table(
    text: str, defaults: Mapping[str, Any], known: Calibration | None = None
) -> tuple[EvaluatedLayout, ...]:
    """Return what each layout of a table needs and takes; `defaults` stand in for empty cells.

    >>> text = "model,gpu,sequence,dp,zero\\nllama-3-8b,h100-80gb,4096,8,3\\n"
    >>> [(row.fits, row.peak_bytes > 2**34) for row in evaluate_table(text, {})]
    [('yes', True)]

    Raises:
        MemtraceError: the text is no table, or a row of it cannot be.
    """
    table = read_table(text, more=MEASURED)
    rows = [read_cells(without_measured(cells), number) for number, cells in enumerate(table, start=1)]
    given = [given_layout(values, number, defaults) for number, values in enumerate(rows, start=1)]
    found = evaluate_layouts(given, known)
    return tuple(
        _beside_measured(row, cells, number)
        for number, (row, cells) in enumerate(zip(found, table, strict=True), start=1)
    )


def _beside_measured(row: EvaluatedLayout, cells: Mapping[str, Any], number: int) -> EvaluatedLayout:
    throughput, peak = (measured(cells, name, number) for name in MEASURED)
    if throughput is None and peak is None:
        return row
    peak_bytes = None if peak is None else round(peak)
    return replace(row, measured_tokens_per_second_per_gpu=throughput, measured_peak_bytes=peak_bytes)


def evaluate_layouts(given: Sequence[GivenLayout], known: Calibration | None = None) -> tuple[EvaluatedLayout, ...]:
    """Return what each layout needs and takes, on a cluster of which measured runs may be known."""
    factors = (1.0, 1.0) if known is None else (known.time_factor, known.memory_factor)
    groups: defaultdict[_Key, list[int]] = defaultdict(list)
    for at, one in enumerate(given):
        groups[alike(one)].append(at)
    found: list[EvaluatedLayout | None] = [None] * len(given)
    for (spec, gpu, run, _), places in groups.items():
        fullest = max(places, key=lambda at: given[at].run.micro_batch * given[at].run.sequence)
        largest = given[fullest].run
        spec.check_one_stack(f"row {fullest + 1:,}: layouts")
        check_countable(
            spec,
            tokens=largest.micro_batch * largest.sequence,
            sequence=max(given[at].run.sequence for at in places),
            has_scores=run.attention != "flash",
            where=f"row {fullest + 1:,}",
        )
        runs, layouts = together([given[at] for at in places])
        try:
            speed = scaled(speed_of(run.framework), factors[0])
            answer = costs(spec, runs, layouts, gpu, speed, memory_factor=factors[1])
            stages = stage_memory(spec, runs, layouts)
        except OverflowError:
            raise MemtraceError(f"row {places[0] + 1:,}: its numbers are more than can be counted") from None
        for index, at in enumerate(places):
            found[at] = _evaluated(given[at], answer, stages, index, known)
    return tuple(one for one in found if one is not None)


def alike(one: GivenLayout) -> _Key:
    """Return what layouts must share to be evaluated at once: all that is no column of numbers."""
    of_run: dict[str, Any] = dict.fromkeys(_RUN_COLUMNS, 1)
    of_layout: dict[str, Any] = dict.fromkeys(_LAYOUT_COLUMNS, 1)
    return one.spec, one.gpu, replace(one.run, **of_run), replace(one.layout, **of_layout)


def together(given: Sequence[GivenLayout]) -> tuple[Run, Layout]:
    """Return layouts that are alike as one, whose sizes are arrays."""
    run: Run = _columns(given[0].run, [one.run for one in given], _RUN_COLUMNS)
    layout: Layout = _columns(given[0].layout, [one.layout for one in given], _LAYOUT_COLUMNS)
    return run, layout


def _columns(first: Any, ones: Sequence[Any], names: Sequence[str]) -> Any:
    return replace(first, **{name: np.array([getattr(one, name) for one in ones], np.int64) for name in names})


def _evaluated(
    given: GivenLayout, answer: Costs, stages: Mapping[str, StageMemory], at: int, known: Calibration | None
) -> EvaluatedLayout:
    capacity = given.gpu.memory_bytes
    needed, outside = int(answer.needed[at]), outside_torch(given)
    doubt = doubt_of(given.run.framework, known, is_8bit=given.run.precision.is_8bit)
    throughput = float(answer.throughput[at])
    return EvaluatedLayout(
        gpus=int(given.layout.world_size),
        step_seconds=float(answer.seconds[at]),
        time_seconds={name: float(column[at]) for name, column in answer.time.items()},
        tokens_per_second_per_gpu=throughput,
        mfu=float(answer.mfu[at]),
        peak_bytes=int(answer.peak[at]) - outside,
        reserved_bytes=needed - outside,
        process_bytes=needed,
        capacity_bytes=capacity,
        fits=str(verdicts(needed, capacity, doubt)),
        tokens_per_second_per_gpu_range=(throughput * doubt.throughput[0], throughput * doubt.throughput[1]),
        process_bytes_range=(round(needed * doubt.memory[0]), round(needed * doubt.memory[1])),
        beyond=_beyond(given),
        stages={
            name: _by_category(stage, at)
            for name, stage in stages.items()
            if name != SECOND or has_fuller_second(given.spec, given.layout)
        },
        assumed=given.assumed,
    )


def _beyond(given: GivenLayout) -> tuple[str, ...]:
    layout = given.layout
    return beyond_published(
        given.run.framework,
        given.gpu,
        parameters=num_parameters(given.spec),
        gpus=int(layout.world_size),
        sequence=int(given.run.sequence),
        tp=int(layout.tp),
        pp=int(layout.pp),
        cp=int(layout.cp),
        has_experts=bool(given.spec.num_moe_layers),
        schedule=given.layout.schedule,
    )


def outside_torch(given: GivenLayout) -> int:
    """Return what the process holds that torch does not allocate: context, loaded kernels, communicators."""
    return int(context_bytes(given.run, given.layout)) - LARGE_CUBLAS_BYTES


def _by_category(stage: StageMemory, at: int) -> dict[str, int]:
    return {name: int(column[at]) for name, column in stage.by_category.items() if column[at]}
