"""Calibration: what measured runs change, how much, and which tables cannot be measurements."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from memtrace.errors import MemtraceError
from memtrace.forecast.evaluation.calibrate import calibration
from memtrace.forecast.evaluation.evaluate import evaluate_table
from memtrace.forecast.evaluation.measured import MEMORY, TIME
from memtrace.forecast.gpus import gpu_named
from memtrace.forecast.model.presets import preset
from memtrace.forecast.planning.doubt import CALIBRATED, DOUBTS, doubt_of
from memtrace.forecast.planning.plan import Question, make_plan
from memtrace.forecast.results import Calibration

ROWS = [
    {
        "model": "gpt2-xl",
        "gpu": "a100-80gb",
        "sequence": 1024,
        "micro_batch": 4,
        "dp": 8,
        "zero": 3,
        "framework": "fsdp",
    },
    {"model": "llama-3-8b", "gpu": "a100-80gb", "sequence": 4096, "dp": 8, "tp": 2, "pp": 2, "accumulation": 8},
]
PLAIN = evaluate_table(json.dumps(ROWS), {})


def known(**measured: Any) -> Calibration:
    return calibration(json.dumps([ROWS[0] | measured]), {})


@pytest.mark.parametrize("factor", [0.5, 1.0, 1.7])
def test_a_run_that_took_so_many_times_as_long_makes_every_layout_take_as_many(factor: float) -> None:
    found = known(**{TIME: PLAIN[0].tokens_per_second_per_gpu / factor})
    assert (found.time_factor, found.memory_factor, found.runs) == (pytest.approx(factor), 1.0, 1)
    for before, after in zip(PLAIN, evaluate_table(json.dumps(ROWS), {}, found), strict=True):
        assert after.step_seconds == pytest.approx(factor * before.step_seconds)
        assert after.peak_bytes == before.peak_bytes


def test_a_run_that_needed_more_memory_makes_every_layout_need_more() -> None:
    found = known(**{MEMORY: 1.25 * PLAIN[0].peak_bytes})
    assert (found.time_factor, found.memory_factor) == (1.0, pytest.approx(1.25))
    after = evaluate_table(json.dumps(ROWS), {}, found)
    assert [row.process_bytes / before.process_bytes for row, before in zip(after, PLAIN, strict=True)] == [
        pytest.approx(1.25, rel=1e-6)
    ] * 2


def test_of_several_runs_the_median_counts() -> None:
    rows = [ROWS[0] | {TIME: PLAIN[0].tokens_per_second_per_gpu / factor} for factor in (1.1, 1.2, 9.0)]
    assert calibration(json.dumps(rows), {}).time_factor == pytest.approx(1.2)


def test_a_plan_says_what_it_learned_and_its_range() -> None:
    question = Question(gpus=8, gpu=gpu_named("a100-80gb"), global_tokens=2**18, sequence=1024, framework="megatron")
    before = make_plan(preset("gpt2-xl"), question, top=1)
    after = make_plan(preset("gpt2-xl"), replace(question, known=Calibration(time_factor=2, memory_factor=1, runs=3)))
    assert after.rows[0].step_time_ns == pytest.approx(2 * before.rows[0].step_time_ns, rel=1e-6)
    assert any("Measured runs (3) took 2.00 times" in one for one in after.assumptions)
    assert not any("Measured runs" in one for one in before.assumptions)


def test_the_range_shrinks_where_published_runs_of_a_group_say_so() -> None:
    found = Calibration(time_factor=1.1, memory_factor=1, runs=1)
    assert doubt_of("megatron", found).throughput == CALIBRATED["megatron"].throughput
    low, high = DOUBTS["megatron"].throughput
    assert low < CALIBRATED["megatron"].throughput[0] < CALIBRATED["megatron"].throughput[1] < high
    assert doubt_of("megatron", found).memory == DOUBTS["megatron"].memory
    assert doubt_of("nanotron", found) == DOUBTS["nanotron"]


@pytest.mark.parametrize(
    ("measured", "words"),
    [
        ({}, "row 1 has no measurement"),
        ({TIME: 0}, f"row 1, column {TIME}: must be a number above 0"),
        ({TIME: "fast"}, f"row 1, column {TIME}"),
        ({TIME: True}, f"row 1, column {TIME}"),
        ({MEMORY: float("inf")}, f"row 1, column {MEMORY}"),
        ({TIME: 1e-3}, "the measured time is"),
        ({MEMORY: 12}, "the measured memory is"),
        ({"mood": 1}, "no column 'mood'"),
    ],
)
def test_what_cannot_be_measured_is_refused(measured: dict[str, Any], words: str) -> None:
    with pytest.raises(MemtraceError, match=words):
        known(**measured)
