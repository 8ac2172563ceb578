"""Every column shows the field that its heading names: results whose fields all differ, drawn, and read back."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from dataclasses import fields, replace
from types import SimpleNamespace
from typing import Any, TypeVar

import pytest
from rich.console import Group
from rich.table import Table

from memtrace.allocator.results import WhatIfRow
from memtrace.analysis.results.communication import (
    CollectiveBytes,
    CommunicationResult,
    ReducerTime,
    ReplicaResult,
    ShardGroup,
)
from memtrace.analysis.results.diagnosis import FragmentationMoment, FragmentationResult, PoolState
from memtrace.analysis.results.ranks import Outlier, RankRow, RankSaving, RanksResult, Spread
from memtrace.analysis.results.report import State, StepResult
from memtrace.analysis.results.step_times import ModelFlops, StepTime, StepTimes, Throughput
from memtrace.analysis.results.time import CollectiveTime, TimeResult, TimeSplit
from memtrace.forecast.fitting.results import FitRun, Measured
from memtrace.forecast.results import ComparedCategory, Comparison, PhaseEstimate, PlanRow
from memtrace.report.answers import diff, estimate, fit, plan, whatif
from memtrace.report.drawing.step_time_rows import step_time_columns, throughput_sentences
from memtrace.report.drawing.time_rows import collective_text, time_columns
from memtrace.report.terminal import overview as text_rows
from memtrace.report.terminal import pools as text_pools
from memtrace.report.terminal import ranks as text_ranks
from memtrace.report.terminal.communication import communication
from memtrace.report.terminal.memory import figures
from tests.fake_report import gpt_report

PRIMES = tuple(one for one in range(101, 1000) if all(one % other for other in range(2, 32)))
One = TypeVar("One")


def distinct(kind: type[One], *, start: int = 0, **given: Any) -> One:
    """Return a result whose fields that are not given are numbers, no two of them the same."""
    numbers = iter(PRIMES[start:])
    return kind(**{field.name: given[field.name] if field.name in given else next(numbers) for field in fields(kind)})  # type: ignore[arg-type]


def tables(group: Any) -> Iterator[Table]:
    """Yield the tables of something drawn."""
    if isinstance(group, Table):
        yield group
    elif isinstance(group, Group):
        for part in group.renderables:
            yield from tables(part)


def drawn(table: Table, row: int = 0) -> list[tuple[str, str]]:
    """Return headings and what stands under them in a row."""
    return [(str(column.header), str(list(column.cells)[row])) for column in table.columns]


def words(group: Any) -> str:
    """Return the sentences beside tables."""
    return "\n".join(str(part) for part in group.renderables if not isinstance(part, Table))


# Time


def test_columns_of_gpu_time() -> None:
    split = distinct(TimeSplit, step=1, start_ns=0)
    time = distinct(TimeResult, whole=split, steps=(split,), window="ProfilerStep", unfinished_steps=(), collectives=())
    time = replace(time, collectives=(distinct(CollectiveTime, name="AllReduce"),))
    found = {name: cell(split) for name, cell in time_columns(time)}
    assert found == {
        "window": f"{split.end_ns} ns",
        "compute": f"{split.compute_ns} ns",
        "communication": f"{split.communication_ns} ns",
        "hidden": f"{100 * split.hidden_ns / split.communication_ns:.1f} %",
        "copies": f"{split.copy_ns} ns",
        "idle": f"{split.idle_ns} ns",
        "share": f"{100 * split.idle_ns / split.end_ns:.1f} %",
        "for data": f"{split.data_stall_ns} ns",
        "for memory": f"{split.allocator_stall_ns} ns",
    }
    one = time.collectives[0]
    assert collective_text(one) == (
        f"AllReduce: {one.num_kernels} kernels, {one.time_ns} ns, {one.exposed_ns} ns of it while nothing is computed."
    )


PHASES = {"data": 3, "forward": 5, "recompute": 7, "backward": 11, "optimizer": 13, "other": 17}


@pytest.mark.parametrize("counted", ["tokens", "samples"])
def test_columns_of_step_times(counted: str) -> None:
    tokens = None if counted == "samples" else 19
    step = StepTime(
        step=2, start_ns=100, end_ns=200, recording_ns=23, phases_ns=PHASES, tokens=tokens, samples=29
    )  # fmt: skip
    found = {name: cell(step) for name, cell in step_time_columns([step])}
    expected = {"time": "77 ns"} | {name: f"{number} ns" for name, number in PHASES.items()} | {"memtrace": "23 ns"}
    assert found == expected | {counted: "19" if counted == "tokens" else "29"}


def test_sentences_of_throughput() -> None:
    flops = distinct(ModelFlops, start=20, device="H100", precision="bf16", utilization=0.43, assumptions=())
    flops = replace(flops, per_step=31 * 10**12, peak_flops=989 * 10**12)
    speed = distinct(Throughput, of_recorded=False, flops=flops)
    first, _, utilization = throughput_sentences(StepTimes(steps=(), throughput=speed))
    assert first == (
        f"{speed.tokens_per_second} tokens a second on this rank: {speed.tokens_per_step} a step, in {speed.step_ns} "
        f"ns, the median of {speed.num_steps} steps recorded without stacks or not at all."
    )
    assert utilization == ("Model FLOPs utilisation 43.0 %, an estimate: 31 TFLOP a step, 989 TFLOP/s of H100.")
    first, *_ = throughput_sentences(StepTimes(steps=(), throughput=replace(speed, tokens_per_second=None)))
    assert first.startswith(
        f"{speed.samples_per_second}.0 samples a second on this rank: {speed.samples_per_step} a step"
    )


# Communication


def exchanged(**parts: Any) -> CommunicationResult:
    nothing = {"replicas": (), "shard_groups": (), "num_shard_steps": 0, "collectives": ()}
    return CommunicationResult(**(nothing | parts))


def test_columns_of_shard_groups() -> None:
    one = distinct(ShardGroup, name="blocks.0")
    group = communication(exchanged(shard_groups=(one,), num_shard_steps=997))
    (table,) = tables(group)
    assert drawn(table) == [
        ("group", "blocks.0"),
        ("gather", f"{one.gather_bytes} B"),
        ("times", f"{one.num_gathers}"),
        ("scatter", f"{one.scatter_bytes} B"),
        ("times", f"{one.num_scatters}"),
    ]
    assert "in 997 steps" in words(group)


def test_columns_of_collectives() -> None:
    one = distinct(CollectiveBytes, name="allreduce", dtype="Float", group="dp")
    (table,) = tables(communication(exchanged(collectives=(one,))))
    assert dict(drawn(table)) == {
        "collective": "allreduce Float",
        "ranks": f"{one.group_size}",
        "kernels": f"{one.num_kernels}",
        "in": f"{one.input_bytes} B",
        "out": f"{one.output_bytes} B",
        "time": f"{one.time_ns} ns",
        "group": "dp",
    }


def test_columns_and_sentences_of_replicas() -> None:
    time = distinct(ReducerTime, start=30)
    one = distinct(ReplicaResult, bucket_bytes=(307, 211), bucket_starts_ns=(50, 75), rebuilt=True, time=time)
    one = replace(one, backward_ns=100)
    group = communication(exchanged(replicas=(one,)))
    (table,) = tables(group)
    rows = [dict(drawn(table, row)) for row in (0, 1)]
    assert rows == [
        {"bucket": "1", "gradients": "307 B", "starts after": "50 ns", "of backward": "50 %"},
        {"bucket": "2", "gradients": "211 B", "starts after": "75 ns", "of backward": "75 %"},
    ]
    said = words(group)
    for sentence in (
        "2 buckets, 518 B in all",
        f"{one.num_reductions} of {one.num_backwards} backward passes in {one.num_steps} steps, {one.num_needless} of",
        f"{one.unused_bytes} B of parameters got no gradient",
        f"As DDP timed {time.num_timed} iterations: the first all-reduce begins {time.start_ns} ns into a backward of "
        f"{time.backward_ns} ns; {time.communication_ns} ns of communication, {time.exposed_ns} ns of it after",
    ):
        assert sentence in said


# Memory


def test_columns_of_peaks() -> None:
    rank = gpt_report().ranks[0]
    end = distinct(State, start=40)
    cells = dict(
        zip(("requested", "allocated", "reserved", "device"), ["101 B", "103 B", "107 B", "109 B"], strict=True)
    )
    peak = replace(
        rank.peak, requested_bytes=101, allocated_bytes=103, reserved_bytes=107, device_used_bytes=109
    )  # fmt: skip
    table = figures(replace(rank, peak=peak, end=end, max_reserved_bytes=113, capacity_bytes=127))
    rows = [dict(drawn(table, row)) for row in range(table.row_count)]
    by_name = {row.pop(""): row for row in rows}
    assert {name: by_name["peak"][name] for name in cells} == cells
    assert [by_name["end"][name] for name in cells] == [
        f"{number} B"
        for number in (end.requested_bytes, end.allocated_bytes, end.reserved_bytes, end.device_used_bytes)
    ]
    assert by_name["largest reserved"]["reserved"] == "113 B"
    assert by_name["memory of the device"]["device"] == "127 B"


def test_columns_of_steps() -> None:
    rank = gpt_report().ranks[0]
    recorded = next(one for one in rank.steps if one.recorded and one.end is not None)
    step: StepResult = replace(
        recorded,
        peak_allocated_bytes=101,
        max_reserved_bytes=103,
        end=distinct(State, start=40),
        num_device_mallocs=107,
        start_ns=1000,
        end_ns=1109,
    )
    assert step.end is not None
    assert dict(itertools.islice(drawn(text_rows.steps(replace(rank, steps=(step,), step_times=None))), 6)) == {
        "step": str(step.step),
        "peak": "101 B",
        "reserved": "103 B",
        "at its end": f"{step.end.allocated_bytes} B",
        "mallocs": "107",
        "time": "109 ns",
    }


def test_columns_of_pools() -> None:
    pool = distinct(PoolState, pool="large", allocated_bytes=997, requested_bytes=900)
    moment = FragmentationMoment(name="end", step=None, event=None, pools=(pool,))
    others = {one.name: None for one in fields(FragmentationResult)} | {"is_model": False, "moments": (moment,)}
    table = text_pools.fragmentation(FragmentationResult(**others))  # type: ignore[arg-type]
    assert dict(drawn(table)) == {
        "": "end, large",
        "reserved": f"{pool.reserved_bytes} B",
        "allocated": "997 B",
        "rounding": "97 B",
        "free": f"{pool.free_bytes} B",
        "in pieces": f"{pool.split_bytes} B",
        "largest free": f"{pool.largest_free_block_bytes} B",
    }


# Ranks


def ranks_result(**parts: Any) -> RanksResult:
    nothing = {one.name: () for one in fields(RanksResult)}
    return RanksResult(**(nothing | {"world_size": 2, "num_missing": 0, "highest": None, "copies": 997} | parts))


def test_columns_of_ranks() -> None:
    row = distinct(RankRow, rank=3, device="cuda:0", host=None, by_category={}, failure="oom")
    (table,) = tables(text_ranks.overview(ranks_result(ranks=(row,))))
    *numbers, remark = drawn(table)
    assert dict(numbers) == {
        "": "rank 3, cuda:0",
        "peak": f"{row.peak_bytes} B",
        "steady": f"{row.steady_peak_bytes} B",
        "reserved": f"{row.reserved_bytes} B",
        "device": f"{row.capacity_bytes} B",
        "last step": f"{row.last_step}",
    }
    assert remark[1] == "out of memory"


def test_columns_of_many_ranks() -> None:
    one = distinct(Spread, name="peak")
    rows = tuple(distinct(RankRow, rank=at, device="cpu", host=None, by_category={}, failure=None) for at in range(9))
    (table,) = tables(text_ranks.overview(ranks_result(ranks=rows, spreads=(one,))))
    assert drawn(table) == [
        ("at the peak", "all"),
        ("lowest", f"{one.min_bytes} B"),
        ("rank", f"{one.min_rank}"),
        ("middle", f"{one.median_bytes} B"),
        ("highest", f"{one.max_bytes} B"),
        ("rank", f"{one.max_rank}"),
    ]


def test_columns_of_ranks_that_stand_out() -> None:
    one = distinct(Outlier, by_category=(), by_module=(), by_parameters=(), facts=("runs elsewhere",))
    assert drawn(text_ranks.differences([one])) == [
        ("rank", f"{one.rank}"),
        ("peak", f"{one.peak_bytes} B"),
        ("difference", f"+{one.excess_bytes} B (+{one.excess_pct} %)"),
        ("what differs from the rank in the middle", "runs elsewhere"),
    ]


def test_columns_of_savings() -> None:
    less = RankSaving(rank=11, parameter_bytes=100, gradient_bytes=10, state_bytes=1)
    more = RankSaving(rank=13, parameter_bytes=400, gradient_bytes=40, state_bytes=4)
    group = text_ranks.savings(ranks_result(savings=(more, less), savings_inferred=False))
    (table,) = tables(group)
    expected = {"ZeRO-1, states": (1, 4), "ZeRO-2, gradients too": (11, 44), "ZeRO-3, parameters too": (111, 444)}
    for row, (name, (least, most)) in enumerate(expected.items()):
        found = [("saved on a rank", name), ("least", f"{least} B"), ("rank", "11"), ("most", f"{most} B")]
        assert drawn(table, row) == [*found, ("rank", "13")]
    assert words(group).startswith("997 ranks hold the same state.")


# Answers of other commands


def test_columns_of_a_plan() -> None:
    row = distinct(PlanRow, recompute="full", fits=True, verdict="fits", reasons=(), settings={}, mfu=0.437)
    assert dict(zip(plan.HEADINGS, plan._cells("1", row), strict=True)) == {
        "": "1",
        "dp": f"{row.dp}",
        "tp": f"{row.tp}",
        "pp": f"{row.pp}",
        "virtual": f"{row.virtual_stages}",
        "cp": f"{row.cp}",
        "ep": f"{row.ep}",
        "ZeRO": f"{row.zero}",
        "recompute": "full",
        "micro-batch": f"{row.micro_batch}",
        "accum.": f"{row.accumulation}",
        "peak": f"{row.peak_bytes} B",
        "step": f"{row.step_time_ns} ns",
        "tok/s/GPU": f"{row.tokens_per_second_per_gpu}",
        "MFU": "43.7%",
    }
    assert plan.layout_name(row) == (
        f"dp {row.dp}, tp {row.tp}, pp {row.pp}, cp {row.cp}, ep {row.ep}, {row.virtual_stages} stages a rank, "
        f"ZeRO-{row.zero}, full recomputation, micro-batch {row.micro_batch} × {row.accumulation}"
    )
    assert plan._cells("1", replace(row, verdict="close"))[0] == "1 close"
    assert plan._cells("", replace(row, verdict="does not fit"))[0] == "does not fit"


def test_columns_of_what_ifs() -> None:
    row = distinct(WhatIfRow, name="as recorded", fits=True, oom=None, is_model=False)
    found = dict(zip(whatif._HEADINGS, whatif._cells(row), strict=True))
    assert found.pop("fits")
    assert found == {
        "": "as recorded",
        "peak allocated": f"{row.peak_allocated_bytes} B",
        "peak reserved": f"{row.max_reserved_bytes} B",
        "wasted": f"{row.wasted_bytes} B",
        "segments made": f"{row.num_device_mallocs}",
        "retries": f"{row.num_alloc_retries}",
    }


def test_columns_of_a_diff() -> None:
    def two(a: int, b: int, **names: Any) -> SimpleNamespace:
        return SimpleNamespace(a_bytes=a, b_bytes=b, delta_bytes=b - a, **names)

    rank: Any = SimpleNamespace(
        rank=0,
        device_b="cuda:0",
        peak_a_bytes=101,
        peak_b_bytes=211,
        reserved_a_bytes=103,
        reserved_b_bytes=307,
        categories=[two(107, 401, name="activation")],
        steps=[two(109, 503, step=4)],
        modules=[two(113, 601, name="blocks.0")],
        stacks=[two(127, 701, frames=("train.py:7 step",))],
    )
    rows = [line.split() for line in diff._rank_lines(rank, named=False)]
    assert sum(row[-5:] == ["A", "B", "B", "-", "A"] for row in rows) == 4
    for name, a, b in [
        (["peak"], 101, 211),
        (["largest", "reserved"], 103, 307),
        (["activations"], 107, 401),
        (["4"], 109, 503),
        (["blocks.0"], 113, 601),
    ]:
        assert [*name, f"{a}", "B", f"{b}", "B", f"+{b - a}", "B"] in rows
    assert [f"+{701 - 127}", "B", "train.py:7", "step"] in rows


def test_columns_of_a_fit() -> None:
    run = FitRun(micro_batch=3, measured=distinct(Measured, out_of_memory=False), fits=True)
    one: Any = SimpleNamespace(
        micro_batch=3, steady_state_peak_bytes=211, capacity_bytes=307, source="recorded", runs=(run,), notes=()
    )
    answer, _, heads, cells = fit.fit_text(one).splitlines()
    assert answer == "The largest micro-batch that fits is 3: 211 B in the steady state, of 307 B."
    assert re.split(r"  +", heads.strip()) == ["micro-batch", "steady-state peak", "needed", "first step", "fits"]
    measured = run.measured
    sizes = (measured.peak_bytes, measured.needed_bytes, measured.first_step_peak_bytes)
    assert re.split(r"  +", cells.strip())[:4] == ["3", *(f"{size} B" for size in sizes)]


def test_columns_of_an_estimate_and_of_a_recording_beside_it() -> None:
    phase = PhaseEstimate(
        step="first",
        phase="forward",
        where="at the loss",
        peak_bytes=503,
        by_category={"parameter": 103, "gradient": 109},
    )
    one: Any = SimpleNamespace(
        model="tiny",
        num_parameters=601,
        active_parameters=607,
        settings={"dp": 2, "tp": 1},
        phases=(phase,),
        peak=phase,
        low_bytes=401,
        high_bytes=701,
        reserved_bytes=613,
        capacity_bytes=None,
        fits=None,
        world_size=2,
        assumptions=(),
    )
    row = ComparedCategory(name="total", estimated_bytes=307, recorded_bytes=311, error_pct=-1.29)
    text = estimate.estimate_text(one, Comparison(title="Beside it", step=4, rows=(row,), notes=()))
    lines = [re.split(r"  +", line.strip()) for line in text.splitlines()]
    heads = next(line for line in lines if line[0] == "peak")
    cells = next(line for line in lines if line[0] == "first step, forward")
    assert dict(zip(heads, cells[1:], strict=True)) == {"peak": "503 B", "parameters": "103 B", "gradients": "109 B"}
    assert ["estimated", "recorded", "error"] in lines
    assert ["total", "307 B", "311 B", "-1.29 %"] in lines
    for words in ("601 parameters (607 active), dp 2", "401 B to 701 B", "beyond it: 613 B", "is at the loss."):
        assert words in text
