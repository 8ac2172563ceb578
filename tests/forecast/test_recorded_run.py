"""A recorded run as a row of measured layouts: what it tells, and what is refused for want of it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from memtrace.analysis.report import analyze
from memtrace.cli import group
from memtrace.errors import MemtraceError
from memtrace.forecast.evaluation.recorded_run import recorded_row
from memtrace.forecast.gpus import GPUS
from memtrace.schema.gpu_cards import CARDS
from memtrace.store.trace import RankTrace, Trace
from memtrace.store.writing.trace import write_trace
from tests.analysis.small_trace import event_rows, owner, phase, rank_trace, step, trace, window

ROWS, SEQUENCE, STEP_NS, PEAK = 4, 512, 5 * 10**7, 3 * 2**30


def recorded(
    *, kind: str = "NVIDIA A100-SXM4-80GB", gpu: str = "a100-80gb", dtype: str = "int64", source: str = "recorded",
    micro_batches: int = 2, header: Mapping[str, Any] | None = None, parameters: list[dict[str, Any]] | None = None,
) -> RankTrace:  # fmt: skip
    """Return two steps of 50 ms each, of micro-batches of 4 x 512 tokens, that peak at 3 GiB."""
    device = {"name": "cuda:0", "kind": kind, "capacity_bytes": CARDS[gpu].memory_bytes}
    phases = [
        phase("backward", number, (number - 1) * STEP_NS + 10 * at, (number - 1) * STEP_NS + 10 * at + 5)
        | {"microbatch": at}
        for number in (1, 2)
        for at in range(micro_batches)
    ]
    inputs = [
        owner(100 * number + at, 1, 8, "input", device="cuda:0")
        | {"name": "input", "dtype": dtype, "shape": f"{ROWS}x{SEQUENCE}", "step": number}
        for number in (1, 2)
        for at in range(micro_batches)
    ]
    steps = [
        step(number, (number - 1) * STEP_NS, number * STEP_NS, num_microbatches=micro_batches) for number in (1, 2)
    ]
    return rank_trace(
        source=source,
        header={"devices": [device]} | dict(header or {}),
        events=event_rows([("alloc", 0x1000, PEAK)], device="cuda:0", time_ns=STEP_NS + 50),
        windows=[window(0, 1, initial=0) | {"start_ns": 0, "end_ns": 2 * STEP_NS}],
        steps=steps,
        phases=phases,
        owners=[*inputs, *(parameters or [])],
    )


def row_of(*ranks: RankTrace) -> dict[str, Any]:
    run = trace(*ranks)
    return recorded_row(run, analyze(run))


def test_one_gpu_tells_its_layout_its_speed_and_its_peak() -> None:
    assert row_of(recorded()) == {
        "gpu": "a100-80gb",
        "sequence": SEQUENCE,
        "micro_batch": ROWS,
        "accumulation": 2,
        "dp": 1,
        "tp": 1,
        "pp": 1,
        "zero": 0,
        "measured_tokens_per_second_per_gpu": 2 * ROWS * SEQUENCE * 10**9 / STEP_NS,
        "measured_peak_bytes": PEAK,
    }


@pytest.mark.parametrize("name", sorted(GPUS))
def test_every_card_is_known_by_what_its_driver_says(name: str) -> None:
    assert CARDS[row_of(recorded(kind=CARDS[name].name, gpu=name))["gpu"]].name == CARDS[name].name


def test_ranks_that_gather_parameters_are_data_parallel() -> None:
    def shard(rank: int) -> RankTrace:
        held = owner(STEP_NS - 1, 0x9000, 64, "parameter", device="cuda:0")
        held |= {"name": "w", "shape": "4x4", "global_shape": "8x4", "placement": f"dp Shard(0) {rank} of 2"}
        return recorded(header={"rank": rank, "world_size": 2}, parameters=[held])

    found = row_of(shard(0), shard(1))
    assert (found["dp"], found["tp"], found["zero"]) == (2, 1, 3)
    assert found["measured_tokens_per_second_per_gpu"] == 2 * ROWS * SEQUENCE * 10**9 / STEP_NS


@pytest.mark.parametrize(
    ("rank", "message"),
    [
        (recorded(kind="Some GPU"), "none of the data sheets"),
        (recorded(gpu="a100-40gb", kind="NVIDIA H100 80GB HBM3"), "none of the data sheets"),
        (recorded(dtype="float32"), "how many tokens"),
        (recorded(source="predicted"), "a prediction"),
        (recorded(header={"rank": 0, "world_size": 8}), "how its 8 ranks share the work"),
    ],
)
def test_what_is_not_told_is_refused(rank: RankTrace, message: str) -> None:
    with pytest.raises(MemtraceError, match=message):
        row_of(rank)


def test_the_command_takes_a_recording_where_it_takes_a_table(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    run: Trace = trace(recorded())
    write_trace(run, path)
    args = ["plan", "--preset", "gpt2", "--gpus", "8", "--gpu", "h100-80gb", "--gbs-tokens", "64K"]
    answer = CliRunner().invoke(group, [*args, "--sequence", "512", "--calibrate", str(path), "--json"])
    row = row_of(recorded()) | {"model": "gpt2"}
    table = tmp_path / "table.json"
    table.write_text(json.dumps([row]), encoding="utf-8")
    same = CliRunner().invoke(group, [*args, "--sequence", "512", "--calibrate", str(table), "--json"])
    assert (answer.exit_code, same.exit_code) == (0, 0), answer.output
    assert json.loads(answer.stdout) == json.loads(same.stdout)
    assert "Measured runs (1)" in answer.stdout
