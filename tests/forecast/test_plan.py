"""Plans: which layouts are tried, what ranks them, that arrays and single layouts agree, that sentences are true."""

from __future__ import annotations

import json
import math
from collections import Counter
from dataclasses import fields, replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memtrace.errors import MemtraceError
from memtrace.forecast.estimation.estimate import check_layout, estimate
from memtrace.forecast.gpus import gpu_named
from memtrace.forecast.memory.layout import FRAMEWORKS, Layout, Run
from memtrace.forecast.memory.phases import moments
from memtrace.forecast.memory.stages import in_framework
from memtrace.forecast.model.precision import PRECISIONS
from memtrace.forecast.model.presets import preset
from memtrace.forecast.planning.costs import RECURRING_PCT, RESERVE_PCT, has_fuller_second, needed_bytes
from memtrace.forecast.planning.doubt import DOUBTS
from memtrace.forecast.planning.launch_settings import launch_settings
from memtrace.forecast.planning.layouts import Grid, layout_grid
from memtrace.forecast.planning.plan import EQUAL_SPEED, MAX_DRAWN, Question, _row, evaluate, make_plan, run_of
from memtrace.forecast.results import PlanRow
from memtrace.forecast.step_time.computation import flops_per_token
from memtrace.forecast.step_time.speed import Speed
from memtrace.forecast.step_time.step import step_time
from memtrace.report.answers.plan import plan_text

LLAMA = Question(gpus=64, gpu=gpu_named("h100-80gb"), global_tokens=2**21, sequence=4096)


def grid_of(name: str, question: Question) -> Grid:
    return layout_grid(
        preset(name),
        gpus=question.gpus,
        global_sequences=question.global_sequences,
        sequence=question.sequence,
        has_quadratic=question.attention == "explicit",
        gpus_per_node=question.gpu.gpus_per_node,
    )


def only(grid: Grid, at: int) -> tuple[Run, Layout]:
    """Return one layout of a grid in whole numbers."""
    layout = Layout(
        **{name: int(getattr(grid, name)[at]) for name in ("dp", "tp", "pp", "virtual_stages", "cp", "ep", "zero")}
    )
    run = Run(
        micro_batch=int(grid.micro_batch[at]),
        accumulation=int(grid.accumulation[at]),
        recompute=int(grid.recompute[at]),
        sequence=LLAMA.sequence,
        is_fused=True,
    )
    return run, layout


@pytest.mark.parametrize("name", ["llama-3-8b", "mixtral-8x7b", "gpt2-xl"])
def test_every_layout_uses_all_gpus_and_makes_the_global_batch(name: str) -> None:
    grid = grid_of(name, LLAMA)
    assert set((grid.dp * grid.tp * grid.pp * grid.cp).tolist()) == {LLAMA.gpus}
    assert set((grid.micro_batch * grid.accumulation * grid.dp).tolist()) == {LLAMA.global_sequences}
    assert len(set(zip(*(getattr(grid, one.name).tolist() for one in fields(Grid)), strict=True))) == len(grid)
    for at in range(0, len(grid), 17):
        run, layout = only(grid, at)
        check_layout(preset(name), run, layout)


@settings(max_examples=15)
@given(name=st.sampled_from(["llama-3-8b", "mixtral-8x7b"]), draw=st.randoms(use_true_random=False))
def test_a_layout_among_many_is_evaluated_as_alone(name: str, draw: object) -> None:
    spec, grid = preset(name), grid_of(name, LLAMA)
    found = evaluate(spec, LLAMA, grid)
    at = draw.randrange(len(grid))  # type: ignore[attr-defined]
    run, layout = only(grid, at)
    alone = estimate(spec, replace(run, context=LLAMA.gpu.context), layout)
    steady = max(one.peak_bytes for one in alone.phases if one.step == "steady")
    assert int(found.peak[at]) == steady
    time = step_time(spec, run, layout, LLAMA.gpu, LLAMA.used_speed)
    assert float(found.seconds[at]) == pytest.approx(float(time.total), rel=1e-12)
    assert float(found.throughput[at]) == pytest.approx(float(time.tokens_per_second_per_gpu), rel=1e-12)


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_layouts_of_a_framework_are_evaluated_as_each_alone(framework: str) -> None:
    # A GPU so large that nothing has to yield.
    gpu = replace(LLAMA.gpu, memory_bytes=2**60)
    # 30 layers do not divide among four stages or eight, but with embedding and head they do.
    spec, question = replace(preset("llama-3-8b"), num_layers=30), replace(LLAMA, framework=framework, gpu=gpu)
    grid = grid_of("llama-3-8b", question)
    grid = grid.take(grid.pp <= spec.num_layers)
    found, every = evaluate(spec, question, grid), run_of(question, grid)
    for at in range(3, len(grid), len(grid) // 12):
        numbers = {name: int(getattr(grid, name)[at]) for name in ("micro_batch", "accumulation", "recompute")}
        run = replace(every, **numbers)
        layout = in_framework(only(grid, at)[1], spec, framework)
        stages = [(layout, False), (layout, True)]
        stages += [(replace(layout, is_second=True), False)] if has_fuller_second(spec, layout) else []
        points = [one for stage, last in stages for one in moments(spec, run, stage, is_last=last, steady=True)]
        assert int(found.peak[at]) == max(one.num_bytes for one in points)
        assert int(found.needed[at]) == max(needed_bytes(one) for one in points)
        time = step_time(spec, run, layout, question.gpu, question.used_speed)
        assert float(found.seconds[at]) == pytest.approx(float(time.total), rel=1e-12)


def test_the_allocator_wastes_less_of_micro_batches_that_are_like_the_first() -> None:
    run = Run(sequence=4096, accumulation=16, framework="megatron")
    for pp in (1, 4):
        points = moments(preset("llama-3-8b"), run, Layout(pp=pp), is_last=False, steady=True)
        (full,) = (one for one in points if one.where == "in the last layer")
        activations, temporary = full.by_category["activation"], full.by_category["temporary"]
        one = (activations - full.recurring) + temporary
        # The first stage has so many micro-batches in flight, and beside their layers the tables of rotations.
        rotations = 2 * 4096 * 128 * 2
        assert full.recurring == (activations - rotations) * (pp - 1) // pp
        assert needed_bytes(full) == full.num_bytes + (RESERVE_PCT * one + RECURRING_PCT * full.recurring) // 100


def test_no_layout_beats_what_the_kernels_reach() -> None:
    found = evaluate(preset("llama-3-8b"), LLAMA, grid_of("llama-3-8b", LLAMA))
    assert all((term >= -1e-9).all() for term in found.time.values())
    assert (found.mfu > 0).all()
    assert (found.mfu <= LLAMA.used_speed.compute_share * (1 + 1e-9)).all()


def test_a_row_of_the_plan_shows_the_time_of_its_own_layout() -> None:
    # Worked numbers for each term are in test_step_time.py; here each column must be the term that its name says.
    grid = grid_of("gpt2", replace(LLAMA, gpus=8))
    at = next(at for at in range(len(grid)) if grid.pp[at] == 2 and grid.tp[at] == 2 and grid.accumulation[at] > 1)
    run, layout = only(grid, at)
    found = evaluate(preset("gpt2"), LLAMA, grid)
    time = step_time(preset("gpt2"), run, layout, LLAMA.gpu, LLAMA.used_speed)
    assert [float(found.time[name][at]) for name in time.terms] == [
        pytest.approx(float(one)) for one in time.terms.values()
    ]
    assert [float(found.throughput[at]), float(found.mfu[at])] == [
        pytest.approx(float(time.tokens_per_second_per_gpu)),
        pytest.approx(float(time.mfu)),
    ]
    row = _row(grid, found, np.full(len(grid), "yes"), at, preset("gpt2"), LLAMA)
    nanoseconds = (row.compute_ns, row.communication_ns, row.bubble_ns)
    assert nanoseconds == tuple(round(1e9 * float(one)) for one in (time.compute, time.communication, time.bubble))
    assert len(set(nanoseconds)) == 3


def test_without_communication_and_bubble_utilisation_is_that_of_the_kernels() -> None:
    question = replace(LLAMA, gpus=1)
    run, layout = only(grid_of("gpt2", question), 0)
    ideal = Speed(compute_share=0.4, attention_share=0.2, layer_bytes=0)
    gpu = replace(LLAMA.gpu, memory_bytes_s=1e30)
    assert step_time(preset("gpt2"), run, layout, gpu, ideal).mfu == pytest.approx(0.4)


def test_flops_of_a_token_are_six_a_parameter_and_attention() -> None:
    spec = preset("llama-3-8b")
    looked_up = 128256 * 4096
    expected = 6 * (8_030_261_248 - looked_up) + 12 * 32 * 4096 * 4096
    assert flops_per_token(spec, 4096) == expected


def test_slower_links_never_make_a_step_faster() -> None:
    spec, grid = preset("llama-3-70b"), grid_of("llama-3-70b", LLAMA)
    slow = replace(LLAMA, gpu=replace(LLAMA.gpu, inter_bytes_s=LLAMA.gpu.inter_bytes_s / 8))
    fast = evaluate(spec, LLAMA, grid).seconds
    assert (evaluate(spec, slow, grid).seconds >= fast * (1 - 1e-12)).all()
    assert (evaluate(spec, slow, grid).seconds > fast).any()


def test_rows_are_best_first_and_fit() -> None:
    plan = make_plan(preset("llama-3-8b"), LLAMA, top=50)
    assert [row.fits for row in plan.rows] == sorted((row.fits for row in plan.rows), reverse=True)
    speeds = [row.tokens_per_second_per_gpu for row in plan.rows if row.fits]
    assert all(later <= sooner * (1 + 2 * EQUAL_SPEED) for sooner, later in pairwise(speeds))
    assert 0 < plan.num_fitting <= plan.num_layouts
    assert all(row.peak_bytes <= plan.capacity_bytes for row in plan.rows if row.fits)


def test_nothing_on_the_frontier_is_beaten() -> None:
    plan = make_plan(preset("llama-3-8b"), LLAMA, top=1000)
    assert plan.pareto
    for one in plan.pareto:
        better = [
            row
            for row in plan.rows
            if row.fits and row.peak_bytes <= one.peak_bytes
            and row.tokens_per_second_per_gpu > one.tokens_per_second_per_gpu * 1.0001
        ]  # fmt: skip
        assert not better
    memory = [row.peak_bytes for row in plan.pareto]
    assert memory == sorted(memory)


def test_a_small_gpu_takes_recomputation_or_sharding_and_a_tiny_one_nothing() -> None:
    small = make_plan(preset("llama-3-8b"), replace(LLAMA, gpu=gpu_named("24GiB")))
    assert small.rows[0].fits
    tiny = make_plan(preset("llama-3-70b"), replace(LLAMA, gpus=8, gpu=gpu_named("8GiB")), top=1000)
    assert (tiny.num_fitting, tiny.pareto) == (0, ())
    assert "Does not fit" in tiny.rows[0].reasons[0]
    # The nearest first, by what is needed: the peak and 8 % of what comes and goes.
    assert tiny.rows[0].peak_bytes <= 1.08 * min(row.peak_bytes for row in tiny.rows)
    assert tiny.rows[0].peak_bytes < tiny.rows[-1].peak_bytes / 2


def test_reasons_about_neighbours_are_true() -> None:
    plan = make_plan(preset("llama-3-70b"), LLAMA, top=200)
    told = [(row, text) for row in plan.rows for text in row.reasons if text.startswith("The largest micro-batch")]
    assert told
    row, _ = told[0]
    spec = preset("llama-3-70b")
    larger = Run(
        micro_batch=2 * row.micro_batch,
        accumulation=row.accumulation // 2,
        sequence=LLAMA.sequence,
        recompute=("none", "selective", "full").index(row.recompute),
        is_fused=True,
    )
    layout = Layout(dp=row.dp, tp=row.tp, pp=row.pp, cp=row.cp, ep=row.ep, zero=row.zero)
    over = estimate(spec, larger, layout)
    reserve = 8 * (over.peak.by_category["activation"] + over.peak.by_category.get("temporary", 0)) // 100
    assert over.peak.peak_bytes + reserve > plan.capacity_bytes


def test_of_equally_fast_layouts_the_one_with_less_memory_comes_first() -> None:
    plan = make_plan(preset("llama-3-8b"), LLAMA, top=200)
    for sooner, later in pairwise(row for row in plan.rows if row.verdict == "fits"):
        speeds = [round(math.log(row.tokens_per_second_per_gpu) / EQUAL_SPEED) for row in (sooner, later)]
        if speeds[0] == speeds[1]:
            assert -(-sooner.peak_bytes // 2**30) <= -(-later.peak_bytes // 2**30)


def test_layouts_that_surely_fit_come_before_those_that_may_and_those_that_do_not() -> None:
    order = ["fits", "close", "does not fit"]
    plan = make_plan(preset("llama-3-8b"), replace(LLAMA, gpus=8, gpu=gpu_named("24GiB")), top=1000)
    words = [row.verdict for row in plan.rows]
    assert words == sorted(words, key=order.index)
    assert set(words) == set(order)
    low, high = DOUBTS["none"].memory
    for row in plan.rows:
        # What the allocator may reserve beyond the peak is at most 8 % of it.
        assert row.verdict != "fits" or row.peak_bytes * high <= plan.capacity_bytes
        assert row.verdict != "does not fit" or row.peak_bytes * 1.08 * low > plan.capacity_bytes
        assert row.fits or row.verdict != "fits"


@pytest.mark.parametrize(
    ("name", "question", "layout"),
    [
        # BLOOM: 384 A100, 2,048 sequences of 2,048 (bigscience, tr11-176B-ml/README.md).
        (
            "bloom-176b",
            Question(
                gpus=384,
                gpu=replace(gpu_named("a100-80gb"), inter_bytes_s=6.25e9),
                global_tokens=2048 * 2048,
                sequence=2048,
                framework="deepspeed",
            ),
            {"dp": 8, "tp": 4, "pp": 12, "micro_batch": 2, "zero": 1},
        ),
        # Llama 3 405B, arXiv 2407.21783, table 4: 16,384 H100, 16M tokens of sequences of 8,192.
        (
            "llama-3.1-405b",
            Question(gpus=16384, gpu=gpu_named("h100-80gb"), global_tokens=2**24, sequence=8192, framework="megatron"),
            {"dp": 128, "tp": 8, "pp": 16, "virtual_stages": 8, "micro_batch": 1, "zero": 1},
        ),
    ],
)
def test_real_layouts_are_in_the_grid(name: str, question: Question, layout: dict[str, int]) -> None:
    grid = grid_of(name, question)
    same = np.ones(len(grid), bool)
    for axis, size in layout.items():
        same &= getattr(grid, axis) == size
    assert same.any()


def test_a_chart_holds_a_bounded_number_of_layouts() -> None:
    plan = make_plan(preset("mixtral-8x7b"), replace(LLAMA, gpus=256, global_tokens=2**24))
    assert plan.num_layouts > MAX_DRAWN
    lengths = {len(column) for column in plan.cloud.columns.values()}
    assert len(lengths) == 1
    assert lengths.pop() <= MAX_DRAWN


@pytest.mark.parametrize(
    ("question", "message"),
    [
        (replace(LLAMA, gpus=0), "at least one GPU"),
        (replace(LLAMA, global_tokens=100), "holds no sequence"),
        (replace(LLAMA, gpus=67, global_tokens=4096), "no layout"),
        (replace(LLAMA, gpus=2**40), "more than a plan can count"),
        (replace(LLAMA, gpu=gpu_named("a100-80gb"), precision=PRECISIONS["fp8-mixed"]), "a100-80gb has no FP8"),
    ],
)
def test_questions_without_an_answer_are_refused(question: Question, message: str) -> None:
    with pytest.raises(MemtraceError, match=message):
        make_plan(preset("llama-3-8b"), question)


NUMBERS = {"dp": 8, "tp": 2, "pp": 2, "cp": 2, "ep": 1, "zero": 1, "micro_batch": 3, "accumulation": 4}
NUMBERS |= {"sequence": 4096, "global_sequences": 96}


def test_settings_name_every_axis() -> None:
    found = launch_settings(NUMBERS, "full")
    assert set(found) == {"torchtitan", "Megatron-LM"}
    for words in ("tensor_parallel_degree 2", "pipeline_parallel_degree 2", "context_parallel_degree 2", "mode full"):
        assert words in found["torchtitan"]
    assert "data_parallel_shard_degree 8" in found["torchtitan"]
    for words in ("--tensor-model-parallel-size 2", "--global-batch-size 96", "--use-distributed-optimizer"):
        assert words in found["Megatron-LM"]


def test_settings_say_how_many_stages_a_rank_has() -> None:
    found = launch_settings(NUMBERS | {"virtual_stages": 4}, "none")
    assert "--num-virtual-stages-per-pipeline-rank 4" in found["Megatron-LM"]
    assert "--parallelism.pipeline_parallel_schedule Interleaved1F1B" in found["torchtitan"]
    plain = launch_settings(NUMBERS | {"virtual_stages": 1}, "none")
    assert not any("virtual" in text or "schedule" in text for text in plain.values())


@pytest.mark.parametrize(
    ("framework", "stages", "recomputes"),
    [
        ("none", {1, 2, 4, 8}, {"none", "full"}),
        ("torchtitan", {1, 2, 4, 8}, {"none", "selective", "full"}),
        ("nanotron", {1}, {"none", "full"}),
    ],
)
def test_what_a_framework_does_not_have_is_not_tried(framework: str, stages: set[int], recomputes: set[str]) -> None:
    plan = make_plan(preset("llama-3-8b"), replace(LLAMA, framework=framework))
    assert set(plan.cloud.columns["virtual_stages"]) == stages
    assert set(plan.cloud.columns["recompute"]) == recomputes


def test_no_sentence_of_a_plan_is_said_twice() -> None:
    plan = make_plan(preset("llama-3-70b"), LLAMA, top=50)
    text = plan_text(plan)
    assert max(Counter(one for row in plan.rows for one in row.reasons).values()) > 1
    assert {text.count(one) for row in plan.rows for one in row.reasons} == {1}


def test_deepspeed_and_fsdp_are_offered_for_data_parallelism_alone() -> None:
    alone = NUMBERS | {"tp": 1, "pp": 1, "cp": 1, "zero": 3}
    found = launch_settings(alone, "none")
    assert json.loads(found["DeepSpeed"])["zero_optimization"] == {"stage": 3}
    assert "reshard_after_forward=True" in found["FSDP2"]
    assert "FSDP2" not in launch_settings(alone | {"zero": 1}, "none")


def test_precision_and_optimizer_change_what_fits() -> None:
    lean = replace(LLAMA, precision=PRECISIONS["bf16"])
    peaks = [make_plan(preset("llama-3-8b"), one, top=1).pareto[0].peak_bytes for one in (LLAMA, lean)]
    assert peaks[1] <= peaks[0]
    assert isinstance(make_plan(preset("gpt2"), replace(LLAMA, gpus=8), top=1).rows[0], PlanRow)
