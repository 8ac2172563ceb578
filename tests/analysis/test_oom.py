"""Out of memory: recorded or predicted, its cause, and the arithmetic from the step before to the one that fails."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memtrace.analysis.device.device_history import build_history
from memtrace.analysis.diagnosis.oom_next_step import needs_after
from memtrace.analysis.report import analyze
from memtrace.analysis.results.report import OomResult, RankReport
from memtrace.report.terminal.report import render_text
from memtrace.store.reading.read import read_trace
from memtrace.store.trace import RankTrace
from memtrace.units import format_bytes
from tests.analysis.small_trace import (
    block,
    event_rows,
    owner,
    phase,
    rank_trace,
    scope,
    segment,
    step,
    trace,
    window,
)
from tests.analysis.test_leaks import Kept, loop
from tests.builders import snapshot

PARAMETERS, STATES, LOGITS, ACTIVATIONS, SMALL = 1000, 2000, 300, 5000, 70
MIB = 2**20


def two_steps(*, states: int = STATES, logits: int = LOGITS, second: int = ACTIVATIONS, **more: Any) -> RankTrace:
    """Two steps: activations are allocated and freed; states appear in the first, logits live into the next."""
    events = [
        ("alloc", 1, PARAMETERS),
        ("alloc", 2, ACTIVATIONS),
        ("alloc", 3, logits),
        ("free_completed", 2, ACTIVATIONS),
        ("alloc", 4, states),
        ("alloc", 5, second),
        ("alloc", 6, logits),
        ("free_completed", 3, logits),
        ("free_completed", 5, second),
    ]
    rows = event_rows(events)
    frames = [{"file": "train.py", "line": 100 + at, "function": "train"} for at in range(len(events))]
    for at, row in enumerate(rows):
        row["stack"] = at
    tables = {
        "events": rows,
        "windows": [window(0, len(events), initial=0)],
        "steps": [step(0, 0, 15), step(1, 15, 55), step(2, 55, 95)],
        "phases": [
            phase("forward", 1, 16, 35),
            phase("backward", 1, 35, 45),
            phase("optimizer", 1, 45, 55),
            phase("forward", 2, 56, 85),
        ],
        "scopes": [scope("head", 66, 85), scope("blocks.0", 57, 65)],
        "owners": [owner(15, 1, PARAMETERS, "parameter"), owner(54, 4, states, "optimizer_state")],
        "frames": frames,
        "stacks": [{"frame": at, "parent": None} for at in range(len(events))],
    }
    return rank_trace(**(tables | more))


def report_of(rank: RankTrace, **options: int) -> RankReport:
    return analyze(trace(rank), **options).ranks[0]


def oom_of(rank: RankTrace, **options: int) -> OomResult:
    oom = report_of(rank, **options).oom
    assert oom is not None
    return oom


STEP_ONE = PARAMETERS + ACTIVATIONS + LOGITS
STEP_TWO = PARAMETERS + ACTIVATIONS + STATES + 2 * LOGITS


def test_a_smaller_device_fails_where_its_capacity_is_first_exceeded() -> None:
    oom = oom_of(two_steps(), capacity_bytes=STEP_ONE + 1)
    assert oom.predicted
    assert (oom.step, oom.phase, oom.module) == (2, "forward", "blocks.0")
    assert (oom.request_bytes, oom.capacity_bytes, oom.cause) == (ACTIVATIONS, STEP_ONE + 1, "capacity")
    assert oom.in_use_bytes == PARAMETERS + STATES + LOGITS
    assert oom.free_bytes == STEP_ONE + 1 - (PARAMETERS + STATES + LOGITS)
    assert oom.where == {"file": "train.py", "line": 105, "function": "train", "module": "blocks.0"}


def test_a_device_that_is_just_large_enough_does_not_fail() -> None:
    assert report_of(two_steps(), capacity_bytes=STEP_TWO).oom is None
    assert report_of(two_steps(), capacity_bytes=STEP_TWO - 1).oom is not None
    assert report_of(two_steps()).oom is None


def test_what_the_first_step_left_is_what_the_second_needs_more() -> None:
    oom = oom_of(two_steps(), capacity_bytes=STEP_TWO - 1)
    needs = oom.needs
    assert needs is not None
    assert (needs.step, needs.peak_bytes, needs.phase) == (1, STEP_ONE, "forward")
    assert [(one.what, one.num_bytes) for one in needs.resident] == [("optimizer_state", STATES), ("outputs", LOGITS)]
    assert [one.where and one.where["line"] for one in needs.resident] == [104, 102]
    # When the new logits are made the old ones are still there.
    assert needs.next_bytes == STEP_TWO
    assert needs.limited_by == "forward"


def test_the_explanation_gives_every_number_in_order() -> None:
    capacity = STEP_TWO - 100
    oom = oom_of(two_steps(), capacity_bytes=capacity)
    text = " ".join(oom.explanation)
    numbers = (STEP_ONE, STATES + LOGITS, STATES, LOGITS, STEP_TWO, capacity, oom.request_bytes)
    at = -1
    for number in numbers:
        at = text.index(format_bytes(number), at + 1)
    assert "train.py:104 train" in text
    assert "Step 2 therefore needs" in text
    assert oom.explanation[0].startswith("Step 1 needed")


def test_verdict_and_first_finding_name_the_step_and_what_stays() -> None:
    report = analyze(trace(two_steps()), capacity_bytes=STEP_ONE + 1)
    assert report.verdict.startswith(f"On a device of {format_bytes(STEP_ONE + 1)} this run would have died in step 2")
    assert "optimizer state, outputs" in report.verdict
    finding = report.findings[0]
    assert (finding.slug, finding.severity) == ("oom", "error")
    assert finding.where is not None
    assert finding.where["line"] == 104
    assert finding.evidence["left_optimizer_state_bytes"] == STATES
    assert finding.evidence["needed_bytes"] == STEP_TWO
    assert "8-bit" in finding.change
    assert "del logits" in finding.change
    assert "Step 1 needed" in render_text(report)


@pytest.mark.parametrize(("logits", "is_cause"), [(4, False), (10 * LOGITS, True)])
def test_a_trifle_that_stays_is_not_blamed_for_what_a_larger_batch_needs(logits: int, is_cause: bool) -> None:
    rank = two_steps(states=4, logits=logits, second=2 * ACTIVATIONS)
    capacity = PARAMETERS + ACTIVATIONS + logits + 1
    report = analyze(trace(rank), capacity_bytes=capacity)
    oom = report.ranks[0].oom
    assert oom is not None
    assert oom.needs is not None
    assert oom.missing_bytes == PARAMETERS + 4 + logits + 2 * ACTIVATIONS + logits - capacity
    assert oom.needs.is_cause is is_cause
    assert ("left behind" in report.verdict) is is_cause
    assert ("stays" in report.findings[0].title) is is_cause
    assert (report.findings[0].where == oom.where) is not is_cause


def test_a_failure_in_step_one_has_no_step_before() -> None:
    oom = oom_of(two_steps(), capacity_bytes=PARAMETERS + 1)
    assert (oom.step, oom.needs) == (1, None)
    assert len(oom.explanation) == 3


def test_a_leak_is_named_as_what_filled_the_device() -> None:
    size, own = 100 * 1024, 900 * 1024
    rank = loop([Kept(size, None, line=7), Kept(own, 0, line=3)], num_steps=8)
    # The sixth step's own memory is the first that does not fit beside what the first six keep.
    oom = oom_of(rank, capacity_bytes=6 * size + own - 1)
    assert oom.step == 6
    sentence = next(one for one in oom.explanation if one.startswith("From step to step"))
    assert "train.py:7" in sentence
    assert format_bytes(5 * size) in sentence
    slugs = [finding.slug for finding in analyze(trace(rank), capacity_bytes=6 * size + own - 1).findings]
    assert slugs[:2] == ["leak", "oom"]


def test_a_step_that_does_not_follow_is_not_told_from_an_earlier_one() -> None:
    rank = loop([Kept(100, None), Kept(900, 0)], num_steps=20, recorded=[1, 2, 3, 19, 20])
    oom = oom_of(rank, capacity_bytes=2400)
    assert (oom.step, oom.needs, oom.request_bytes) == (19, None, 900)
    report = analyze(trace(rank), capacity_bytes=1700)
    assert "or before: more was in use already" in report.verdict


def test_a_recording_that_starts_beyond_the_capacity_names_no_request() -> None:
    rank = rank_trace(events=event_rows([("free_completed", 1, 900)]), windows=[window(0, 1, initial=900)])
    assert report_of(rank, capacity_bytes=500).oom is None  # one lone free is no history
    events = [("alloc", 2, 10), ("free_completed", 2, 10)]
    rank = rank_trace(events=event_rows(events), windows=[window(0, 2, initial=900)])
    oom = oom_of(rank, capacity_bytes=500)
    assert (oom.request_bytes, oom.in_use_bytes, oom.free_bytes) == (None, 900, 0)


def test_of_a_run_on_a_gpu_the_host_is_not_judged() -> None:
    gpu = event_rows([("alloc", 1, 100)], device="cuda:0")
    host = event_rows([("alloc", 9, 5000), ("alloc", 10, 5000)])
    rank = rank_trace(events=[*gpu, *host], windows=[window(0, 3, initial=0)])
    found = analyze(trace(rank), capacity_bytes=1000).ranks
    assert {one.device: one.oom for one in found} == {"cuda:0": None, "cpu": None}


def recorded_oom(*, request: int, free: int, idle: int, capacity: int | None = None) -> RankTrace:
    """A snapshot of a device whose one segment holds a block in use and one that is free."""
    rows = event_rows([("alloc", 1, 100), ("oom", None, request)], device="cuda:0")
    rows[1]["device_free_bytes"] = free
    devices = [] if capacity is None else [{"name": "cuda:0", "capacity_bytes": capacity}]
    return rank_trace(
        source="snapshot",
        header={"devices": devices},
        events=rows,
        windows=[window(0, 2)],
        segments=[segment(1, 100 + idle, 100)],
        blocks=[block(0, 1, 100, "active_allocated"), block(0, 101, idle, "inactive")],
    )


@pytest.mark.parametrize(
    ("request_bytes", "free", "idle", "cause"),
    [
        (200, 10, 50, "capacity"),
        (200, 180, 50, "fragmentation"),
        (30 * MIB, MIB, 28 * MIB, "capacity"),
        (30 * MIB, 3 * MIB, 28 * MIB, "fragmentation"),
        # The device has room for the segment, so a limit of the process failed the request.
        (30 * MIB, 60 * MIB, 10 * MIB, "capacity"),
        (30 * MIB, 60 * MIB, 40 * MIB, "fragmentation"),
    ],
)
def test_capacity_fragmentation_and_limits_are_told_apart(request_bytes: int, free: int, idle: int, cause: str) -> None:
    oom = oom_of(recorded_oom(request=request_bytes, free=free, idle=idle))
    assert not oom.predicted
    assert (oom.cause, oom.free_bytes, oom.reserved_unallocated_bytes) == (cause, free, idle)
    text = " ".join(oom.explanation)
    assert (f"It was {cause}") in text
    assert ("a limit is set" in text) == (free >= request_bytes)


def test_what_others_hold_is_what_the_capacity_leaves() -> None:
    oom = oom_of(recorded_oom(request=30 * MIB, free=3 * MIB, idle=20 * MIB, capacity=40 * MIB))
    assert oom.reserved_bytes == 20 * MIB + 100
    assert oom.non_torch_bytes == 40 * MIB - 3 * MIB - (20 * MIB + 100)
    assert format_bytes(oom.non_torch_bytes) in " ".join(oom.explanation)
    # A capacity below what is reserved is that of another device.
    assert oom_of(recorded_oom(request=30 * MIB, free=3 * MIB, idle=20 * MIB, capacity=MIB)).non_torch_bytes is None


def test_a_snapshot_at_an_oom_says_what_failed_and_where(tmp_path: Path) -> None:
    frames = [("/site-packages/torch/nn/functional.py", 9, "gelu"), ("model.py", 20, "forward"), ("train.py", 5, "run")]
    built = snapshot().alloc(0x10000000, 6 * MIB, frames=frames).alloc(0x20000000, 7 * MIB).free(0x20000000)
    written = built.oom(40 * MIB, device_free=MIB).build()
    written["device_traces"][0][-1]["frames"] = [
        {"filename": file, "line": line, "name": name} for file, line, name in frames
    ]
    path = tmp_path / "oom.pickle"
    path.write_bytes(pickle.dumps(written))
    report = analyze(read_trace((path,)))
    oom = report.ranks[0].oom
    assert oom is not None
    assert (oom.request_bytes, oom.free_bytes, oom.cause) == (40 * MIB, MIB, "capacity")
    assert oom.reserved_unallocated_bytes == oom.largest_free_block_bytes == 7 * MIB
    assert oom.where == {"file": "model.py", "line": 20, "function": "forward", "module": None}
    assert report.findings[0].slug == "oom"


sizes = st.integers(1, 50)


@given(
    before=st.lists(sizes, max_size=3),
    things=st.lists(
        st.tuples(sizes, st.sampled_from(["freed", "let go between steps", "made once", "rebound"])),
        min_size=1,
        max_size=8,
    ),
)
def test_the_next_step_needs_as_much_as_foretold_if_it_does_the_same(
    before: list[int], things: list[tuple[int, str]]
) -> None:
    events = [("alloc", at + 1, size) for at, size in enumerate(before)]
    owners, marks, old = [], [], dict[int, tuple[int, int]]()
    for number in (1, 2):
        marks.append(len(events))
        own = {at: (100 * number + at, size) for at, (size, _) in enumerate(things)}
        for at, (size, fate) in enumerate(things):
            if fate == "made once" and number == 2:
                continue
            events.append(("alloc", own[at][0], size))
            if fate == "made once":
                owners.append(owner(10 * len(events), own[at][0], size, "optimizer_state"))
            if fate == "rebound" and at in old:
                events.append(("free_completed", *old[at]))
        events += [("free_completed", *own[at]) for at, (_, fate) in enumerate(things) if fate == "freed"]
        marks.append(len(events))
        events += [("free_completed", *own[at]) for at, (_, fate) in enumerate(things) if fate.startswith("let")]
        old = own
    levels = [0]
    for action, _, size in events:
        levels.append(levels[-1] + (size if action == "alloc" else -size))
    start_one, end_one, start_two, end_two = (10 * mark + 5 for mark in marks)
    rank = rank_trace(
        events=event_rows(events),
        windows=[{**window(0, len(events), initial=0), "start_ns": 0}],
        steps=[step(0, 0, start_one), step(1, start_one, end_one), step(2, end_one, end_two)],
        phases=[phase("forward", 1, start_one, end_one), phase("forward", 2, start_two, end_two)],
        owners=owners,
    )
    needs = needs_after(build_history(rank, "cpu", owns_marks=False), 2)
    assert needs is not None
    assert needs.peak_bytes == max(levels[marks[0] : marks[1] + 1])
    assert needs.next_bytes == max(levels[marks[2] : marks[3] + 1])
