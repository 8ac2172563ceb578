"""The steady state predicted from the first step: by hand on small traces, and against recordings that go on."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.steady.cases import CASES, PROGRAM, Case
from benchmarks.steady.compare import compare
from benchmarks.steady.cut import Cut, cut_rank
from memtrace.analysis.device.device_history import build_history
from memtrace.analysis.device.steps import step_spans
from memtrace.analysis.first_step.two_peaks import steady_state_peak
from memtrace.analysis.report import analyze
from memtrace.analysis.results.report import PredictedPeak, RankReport
from memtrace.store.reading.read import read_trace
from memtrace.store.trace import RankTrace
from tests.analysis.small_trace import Event, event_rows, owner, phase, rank_trace, step, trace, window
from tests.warm.start import warm_python

PARAMETER, ACTIVATION, LOGITS, STATE = 1000, 500, 300, 2000
GRADIENT = PARAMETER

EVENTS: list[Event] = [
    ("alloc", 1, PARAMETER),  # 10
    ("alloc", 2, ACTIVATION),  # 20, forward
    ("alloc", 3, LOGITS),  # 30
    ("alloc", 4, GRADIENT),  # 40, backward
    ("free_completed", 2, ACTIVATION),  # 50
    ("alloc", 5, STATE),  # 60, optimizer
]
FREE_GRADIENT: Event = ("free_completed", 4, GRADIENT)  # 70
ADAM = {
    "class_name": "AdamW",
    "group": 0,
    "num_parameters": PARAMETER // 4,
    "options": json.dumps({"foreach": True, "fused": None}),
}


def run(
    events: Sequence[Event] = (*EVENTS, FREE_GRADIENT),
    *,
    next_forward: int | None = 75,
    zero_grad: tuple[int, int] | None = None,
    header: Mapping[str, Any] | None = None,
) -> RankTrace:
    """Return a run whose first step ends at 65; the forward of step 2 begins at 75, after which nothing happens."""
    phases = [phase("forward", 1, 15, 35), phase("backward", 1, 35, 55), phase("optimizer", 1, 55, 65)]
    steps = [step(0, 0, 15), step(1, 15, 65)]
    if next_forward is not None:
        phases.append(phase("forward", 2, next_forward, None))
        steps.append(step(2, 65, None, recorded=False))
    owners = [
        owner(15, 1, PARAMETER, "parameter"),
        owner(66, 4, GRADIENT, "gradient"),
        owner(66, 5, STATE, "optimizer_state"),
    ]
    annotations = []
    if zero_grad is not None:
        start, end = zero_grad
        annotations = [
            {"name": "Optimizer.zero_grad#AdamW.zero_grad", "start_ns": start, "end_ns": end, "device": "cpu"}
        ]
    return rank_trace(
        events=event_rows(events),
        windows=[window(0, len(events), initial=0)],
        steps=steps,
        phases=phases,
        owners=owners,
        optimizers=[ADAM],
        annotations=annotations,
        header=header,
    )


def predicted(rank: RankTrace, capacity: int | None = None) -> PredictedPeak:
    peak = analyze(trace(rank), capacity_bytes=capacity).ranks[0].steady_state_peak
    assert isinstance(peak, PredictedPeak)
    return peak


def test_states_are_resident_and_gradients_gone_when_the_next_forward_runs() -> None:
    peak = predicted(run())
    assert peak.requested_bytes == PARAMETER + STATE + ACTIVATION + LOGITS + GRADIENT
    assert (peak.phase, peak.step, peak.time_ns) == ("backward", 2, None)
    assert peak.by_category["optimizer_state"] == STATE
    assert peak.by_category["gradient"] == GRADIENT
    assert sum(peak.by_category.values()) == sum(peak.by_decision.values()) == peak.requested_bytes
    assert peak.assumptions == ()


def test_old_outputs_are_in_use_until_the_new_ones_replace_them() -> None:
    large = 10 * (PARAMETER + STATE)
    events = [(action, address, large if address == 3 else size) for action, address, size in EVENTS]
    peak = predicted(run([*events, FREE_GRADIENT]))
    assert peak.phase == "forward"
    assert peak.requested_bytes == PARAMETER + STATE + ACTIVATION + 2 * large


def test_gradients_that_outlive_the_step_are_in_use_through_the_next_forward() -> None:
    peak = predicted(run(EVENTS))
    assert peak.phase == "forward"
    assert peak.requested_bytes == PARAMETER + STATE + GRADIENT + LOGITS + ACTIVATION + LOGITS


@pytest.mark.parametrize(
    "rank",
    [
        run([*EVENTS, ("alloc", 9, 1)], zero_grad=(66, 72)),
        run(EVENTS, next_forward=None, header={"keeps_gradients": True}),
    ],
    ids=["seen to survive", "said by the hooks"],
)
def test_kept_gradients_have_new_ones_beside_them(rank: RankTrace) -> None:
    peak = predicted(rank)
    assert peak.by_category["gradient"] == 2 * GRADIENT
    assert peak.requested_bytes == PARAMETER + STATE + 2 * GRADIENT + ACTIVATION + LOGITS
    assert peak.assumptions == ()


def test_what_is_not_told_is_assumed_and_widens_the_range() -> None:
    peak = predicted(run(EVENTS, next_forward=None))
    assert peak.requested_bytes == PARAMETER + STATE + ACTIVATION + LOGITS + GRADIENT
    assert "zero_grad" in peak.assumptions[0]
    assert peak.high_bytes > PARAMETER + STATE + 2 * GRADIENT + ACTIVATION + LOGITS
    assert peak.low_bytes < peak.requested_bytes


def test_zero_grad_between_forward_and_backward_frees_there() -> None:
    peak = predicted(run(EVENTS, next_forward=None, zero_grad=(31, 34)))
    assert peak.phase == "forward"
    assert peak.requested_bytes == PARAMETER + STATE + GRADIENT + LOGITS + ACTIVATION + LOGITS


def test_a_step_that_replaces_what_is_resident_keeps_one_of_each() -> None:
    events: list[Event] = [
        ("alloc", 1, PARAMETER),
        ("alloc", 2, ACTIVATION),
        ("alloc", 3, LOGITS),
        ("alloc", 4, GRADIENT),
        ("free_completed", 2, ACTIVATION),
        ("alloc", 6, PARAMETER),
        ("free_completed", 1, PARAMETER),
        ("free_completed", 4, GRADIENT),
    ]
    rank = rank_trace(
        events=event_rows(events),
        windows=[window(0, len(events), initial=0)],
        steps=[step(0, 0, 15), step(1, 15, 75)],
        phases=[phase("forward", 1, 15, 35), phase("backward", 1, 35, 55), phase("optimizer", 1, 55, 75)],
        owners=[owner(15, 1, PARAMETER, "parameter"), owner(76, 6, PARAMETER, "parameter")],
    )
    # Both are there for a moment in the optimizer's step; the forward has one.
    peak = predicted(rank)
    assert (peak.phase, peak.by_category["parameter"]) == ("optimizer", 2 * PARAMETER)
    assert peak.requested_bytes == 2 * PARAMETER + GRADIENT + LOGITS


def test_an_optimizer_step_that_was_not_recorded_is_derived_from_its_options() -> None:
    peak = predicted(cut_rank(run(), 56))
    states = 2 * PARAMETER + 4
    assert peak.phase == "optimizer"
    assert peak.by_category == {
        "parameter": PARAMETER,
        "gradient": GRADIENT,
        "optimizer_state": states,
        "activation": LOGITS,
        "temporary": PARAMETER,
        "unknown": 0,
    }
    assert "AdamW" in " ".join(peak.assumptions)


def test_a_second_forward_before_the_optimizer_means_that_gradients_accumulate() -> None:
    phases = [phase("forward", 1, 15, 35), phase("backward", 1, 35, 55), phase("forward", 1, 57, None)]
    rank = rank_trace(
        events=event_rows(EVENTS[:5]),
        windows=[window(0, 5, initial=0)],
        steps=[step(0, 0, 15), step(1, 15, None, recorded=False)],
        phases=phases,
        owners=[owner(15, 1, PARAMETER, "parameter")],
        optimizers=[ADAM],
    )
    peak = predicted(rank)
    # A second gradient beside the first, and the activations with both.
    assert peak.requested_bytes == 3 * PARAMETER + 4 + 2 * GRADIENT + ACTIVATION + LOGITS


@pytest.mark.parametrize("world_size", [None, 2])
def test_gradients_that_share_a_storage_are_known_where_ranks_shard_them(world_size: int | None) -> None:
    events: list[Event] = [
        ("alloc", 1, 600),
        ("alloc", 2, 400),
        ("alloc", 3, ACTIVATION),
        ("alloc", 4, 1000),
        ("free_completed", 3, ACTIVATION),
    ]
    rank = rank_trace(
        events=event_rows(events),
        windows=[window(0, len(events), initial=0)],
        steps=[step(0, 0, 25), step(1, 25, None, recorded=False)],
        phases=[phase("forward", 1, 25, 35), phase("backward", 1, 35, 55), phase("optimizer", 1, 56, None)],
        owners=[owner(25, 1, 600, "parameter"), owner(25, 2, 400, "parameter")],
        optimizers=[ADAM],
        header={"world_size": world_size},
    )
    peak = predicted(rank)
    sharded = world_size is not None
    # On one rank nothing says that an allocation of no parameter's size is a gradient.
    assert peak.by_category.get("gradient", 0) == 1000 * sharded
    assert peak.by_category.get("optimizer_state", 0) == (2 * 1000 + 2 * 4) * sharded


@pytest.mark.parametrize(("capacity", "fits"), [(4000, False), (4800, None), (6000, True), (None, None)])
def test_capacity_is_compared_with_the_range(capacity: int | None, fits: bool | None) -> None:
    peak = predicted(run(), capacity)
    assert peak.requested_bytes == 4800
    assert peak.fits is fits
    report = analyze(trace(run()), capacity_bytes=capacity)
    assert ("oom" in [finding.slug for finding in report.findings]) == (fits is False)


def test_what_others_hold_is_needed_too_where_no_step_says_how_much() -> None:
    history = build_history(run(), "cpu", owns_marks=True)
    spans = step_spans(history)
    # The range is 4800 and a fiftieth of it to either side.
    for others, fits in [(None, True), (1100, True), (1200, None), (1300, False)]:
        peak = steady_state_peak(history, spans, capacity_bytes=6000, others_bytes=others)
        assert isinstance(peak, PredictedPeak)
        assert peak.needed_bytes == 4800 + (others or 0)
        assert peak.fits is fits


def test_a_recorded_second_step_is_no_prediction() -> None:
    phases = [phase("forward", 1, 15, 35), phase("backward", 1, 35, 55)]
    rank = rank_trace(
        events=event_rows([*EVENTS, FREE_GRADIENT]),
        windows=[window(0, 7, initial=0)],
        steps=[step(0, 0, 15), step(1, 15, 55), step(2, 55, 75)],
        phases=phases,
        owners=[owner(15, 1, PARAMETER, "parameter")],
    )
    peak = report_of(rank).steady_state_peak
    assert peak is not None
    assert not peak.predicted


@pytest.mark.parametrize("time_ns", [5, 16, 36, 45])
def test_without_a_whole_backward_pass_nothing_is_predicted(time_ns: int) -> None:
    assert report_of(cut_rank(run(), time_ns)).steady_state_peak is None


def report_of(rank: RankTrace) -> RankReport:
    return analyze(trace(rank)).ranks[0]


@given(st.lists(st.integers(1, 10_000), min_size=4, max_size=4), st.integers(0, 80))
def test_no_prediction_is_below_what_stays_resident(sizes: list[int], time_ns: int) -> None:
    parameter, activation, logits, state = sizes
    by_address = {1: parameter, 2: activation, 3: logits, 4: parameter, 5: state}
    events = [(action, address, by_address[address]) for action, address, _ in (*EVENTS, FREE_GRADIENT)]
    peak = report_of(cut_rank(run(events), time_ns)).steady_state_peak
    if isinstance(peak, PredictedPeak):
        assert (peak.requested_bytes or 0) >= parameter + peak.by_category.get("optimizer_state", 0)
        assert peak.low_bytes <= (peak.requested_bytes or 0) <= peak.high_bytes
        assert sum(peak.by_category.values()) == peak.requested_bytes


# Recordings

SUBSET = [
    "gpt, adamw, 4 microbatches, small batch",
    "gpt, adamw, gradients kept by the first line of the loop",
    "resnet, momentum, zero_grad before backward",
]


@pytest.fixture(scope="module", params=SUBSET)
def recorded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Case, RankTrace]:
    """A case and its recording."""
    (case,) = (case for case in CASES if case.name == request.param)
    output = tmp_path_factory.mktemp("steady") / "t.json"
    record(output, PROGRAM, *case.arguments(3))
    (rank,) = read_trace(output).ranks
    return case, rank


def record(output: Path, program: Path, *arguments: str) -> int:
    """Run a program recorded, in a process of its own, and return its exit status."""
    line = [sys.executable, "-m", "memtrace", "record", "-o", output, "--", warm_python(), program, *arguments]
    environ = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(list(map(str, line)), capture_output=True, env=environ).returncode


def test_predictions_from_less_agree_with_the_whole_recording(recorded: tuple[Case, RankTrace]) -> None:
    case, rank = recorded
    for cut in Cut:
        found = compare(rank, cut)
        assert found.is_in_range
        if cut not in case.untold:
            assert -0.01 <= found.error <= 0.02, cut


def test_a_cut_recording_is_the_beginning_of_the_whole(recorded: tuple[Case, RankTrace]) -> None:
    _, rank = recorded
    whole = build_history(rank, "cpu", owns_marks=False)
    last_ns = int(whole.moments.time_ns[-1])
    for time_ns in np.linspace(int(whole.moments.time_ns[1]), last_ns, 7).astype(np.int64).tolist():
        part = build_history(cut_rank(rank, time_ns), "cpu", owns_marks=False)
        assert np.array_equal(part.levels.requested, whole.levels.requested[: len(part.moments)])
        assert int(part.moments.time_ns[-1]) <= time_ns
    assert len(build_history(cut_rank(rank, last_ns), "cpu", owns_marks=False).moments) == len(whole.moments)


@pytest.mark.parametrize("batch", [100, 200])
def test_a_snapshot_of_a_gpu_tells_as_much_without_hooks(batch: int, shared_data: Path) -> None:
    """Its optimizer is of no class of torch's, and replaces its states instead of changing them in place."""
    (rank,) = read_trace(shared_data / f"snapshots/gpt-train-3-steps-from-process-start-batch{batch}.pickle").ranks
    for cut in Cut:
        found = compare(rank, cut)
        assert found.is_in_range
        assert -0.01 <= found.error <= 0.02, cut


DIES = """
import sys, torch
torch.manual_seed(0)
model = torch.nn.Sequential(*[torch.nn.Linear(256, 256) for _ in range(4)])
optimizer = torch.optim.AdamW(model.parameters(), foreach=True)
for step in range(3):
    loss = model(torch.randn(8, 256)).sum()
    loss.backward()
    if len(sys.argv) > 1:
        raise MemoryError("as a device would")
    optimizer.step()
    optimizer.zero_grad()
"""


def test_a_program_that_dies_before_its_first_optimizer_step_tells_the_same(tmp_path: Path) -> None:
    program = tmp_path / "dies.py"
    program.write_text(DIES)
    peaks = []
    for more in ((), ("die",)):
        output = tmp_path / f"{len(more)}.json"
        assert (record(output, program, *more) != 0) == bool(more)
        peaks.append(analyze(read_trace(output)).ranks[0].steady_state_peak)
    whole, foretold = peaks
    assert whole is not None
    assert isinstance(foretold, PredictedPeak)
    assert not whole.predicted
    assert abs((foretold.requested_bytes or 0) / (whole.requested_bytes or 1) - 1) < 0.01
