"""Whole reports of small traces: peaks and where they were, steps, modules, stacks, out-of-memory, notes, verdict."""

from __future__ import annotations

import pytest

from memtrace.analysis.report import analyze
from memtrace.analysis.results.report import Finding, RankReport
from memtrace.analysis.sentences.verdict import verdict
from memtrace.store.trace import RankTrace
from tests.analysis.small_trace import (
    block,
    event_rows,
    initial_block,
    owner,
    phase,
    rank_trace,
    scope,
    segment,
    step,
    trace,
    window,
)
from tests.analysis.test_lifetimes import A, C

PARAMETER, ACTIVATION, SECOND = 1000, 500, 700
"""Bytes of what the small run allocates."""


def small_run(**more: object) -> RankTrace:
    """A parameter, then two steps that each allocate and free an activation; the second one is larger."""
    # Times: 10 alloc, 20 alloc, 30 free, 40 alloc, 50 free.
    events = [(A, 1, PARAMETER), (A, 2, ACTIVATION), (C, 2, ACTIVATION), (A, 2, SECOND), (C, 2, SECOND)]
    tables = {
        "events": event_rows(events),
        "windows": [window(0, 5, initial=0)],
        "steps": [step(0, 0, 15), step(1, 15, 35, num_microbatches=2), step(2, 35, 55)],
        "phases": [phase("forward", 1, 16, 25), phase("backward", 1, 25, 34), phase("forward", 2, 36, 54)],
        "scopes": [scope("model", 16, 25), scope("model.head", 18, 24), scope("model", 36, 54)],
        "owners": [owner(35, 1, PARAMETER, "parameter"), owner(55, 1, PARAMETER, "parameter")],
    }
    return rank_trace(**(tables | more))  # type: ignore[arg-type]


def report_of(rank: RankTrace, **options: int) -> RankReport:
    return analyze(trace(rank), **options).ranks[0]


def test_peak_says_when_and_where() -> None:
    peak = report_of(small_run()).peak
    assert peak.requested_bytes == peak.allocated_bytes == PARAMETER + SECOND
    assert (peak.time_ns, peak.step, peak.phase, peak.module, peak.event) == (40, 2, "forward", "model", 3)
    assert peak.by_category == {"parameter": PARAMETER, "temporary": SECOND, "unknown": 0}
    assert peak.reserved_bytes is None


def test_first_step_and_steady_state_have_peaks_of_their_own() -> None:
    report = report_of(small_run())
    assert report.first_step_peak is not None
    assert report.steady_state_peak is not None
    assert report.first_step_peak.requested_bytes == PARAMETER + ACTIVATION
    assert (report.first_step_peak.step, report.first_step_peak.module) == (1, "model.head")
    assert report.steady_state_peak.requested_bytes == PARAMETER + SECOND


def test_steps_have_peak_end_and_phases() -> None:
    one, two = report_of(small_run()).steps
    assert (one.step, one.num_microbatches, one.peak_allocated_bytes) == (1, 2, PARAMETER + ACTIVATION)
    assert one.end is not None
    assert one.end.by_category == {"parameter": PARAMETER, "unknown": 0}
    assert [(found.phase, found.peak_allocated_bytes) for found in one.phases] == [
        ("forward", PARAMETER + ACTIVATION),
        ("backward", PARAMETER + ACTIVATION),
    ]
    assert two.peak_allocated_bytes == PARAMETER + SECOND


def test_modules_add_up_to_the_peak() -> None:
    report = report_of(small_run())
    assert {row.module: row.num_bytes for row in report.top_modules} == {None: PARAMETER, "model": SECOND}
    assert sum(row.num_bytes for row in report.top_modules) == report.peak.requested_bytes


def test_unrecorded_step_has_no_figures() -> None:
    steps = [step(0, 0, 15), step(1, 15, 35), step(2, 35, 38, recorded=False)]
    _, two = report_of(small_run(steps=steps)).steps
    assert (two.peak_allocated_bytes, two.peak_requested_bytes, two.end) == (None, None, None)


def test_step_that_did_not_end_has_a_peak_and_no_end() -> None:
    steps = [step(0, 0, 15), step(1, 15, 35), step(2, 35, None, recorded=False)]
    report = report_of(small_run(steps=steps))
    assert report.steps[1].peak_allocated_bytes == PARAMETER + SECOND
    assert report.steps[1].end is None
    assert report.steady_state_peak is not None
    assert report.steady_state_peak.predicted


def test_what_follows_the_last_step_is_no_step() -> None:
    steps = [step(0, 0, 15), step(1, 15, 35), step(2, 35, 55), step(3, 55, None, recorded=False, num_microbatches=0)]
    assert [one.step for one in report_of(small_run(steps=steps)).steps] == [1, 2]


def test_step_after_a_gap_does_not_see_the_state_before_it() -> None:
    rank = small_run(
        events=event_rows([(A, 1, PARAMETER), (A, 9, 5000), (A, 2, SECOND), (C, 2, SECOND)]),
        windows=[window(0, 2, initial=0), window(2, 2, initial=PARAMETER)],
        initial_blocks=[initial_block(1, PARAMETER, window=1)],
        # The window begins at 25, a moment after the step did.
        steps=[step(0, 0, 15), step(1, 15, 21), step(9, 22, 45)],
    )
    nine = next(one for one in report_of(rank).steps if one.step == 9)
    assert nine.peak_requested_bytes == PARAMETER + SECOND


def test_marks_complete_the_end_of_a_step_on_an_accelerator() -> None:
    rows = event_rows([(A, 1, 100)], device="cuda:0")
    marks = step(1, 0, 20, device_used_bytes=900, reserved_bytes=600, allocated_bytes=512, num_device_mallocs=3)
    rank = rank_trace(
        events=rows, windows=[window(0, 1, initial=0)], steps=[step(0, 0, 0, num_device_mallocs=1), marks]
    )
    found = report_of(rank).steps[0]
    assert found.end is not None
    assert (found.end.allocated_bytes, found.end.reserved_bytes) == (512, 600)
    assert (found.end.device_used_bytes, found.end.non_torch_bytes) == (900, 300)
    assert found.num_device_mallocs == 2


def oom_rank(*, free: int, request: int, unallocated: int) -> RankTrace:
    rows = event_rows([(A, 1, 100), ("oom", None, request)], device="cuda:0")
    rows[1]["device_free_bytes"] = free
    return rank_trace(
        source="snapshot",
        events=rows,
        windows=[window(0, 2)],
        segments=[segment(1, 100 + unallocated, 100)],
        blocks=[block(0, 1, 100, "active_allocated"), block(0, 101, unallocated, "inactive")],
    )


def test_oom_by_capacity() -> None:
    oom = report_of(oom_rank(free=10, request=200, unallocated=50)).oom
    assert oom is not None
    assert (oom.request_bytes, oom.free_bytes, oom.reserved_unallocated_bytes) == (200, 10, 50)
    assert (oom.largest_free_block_bytes, oom.cause) == (50, "capacity")


def test_oom_by_fragmentation() -> None:
    oom = report_of(oom_rank(free=180, request=200, unallocated=50)).oom
    assert oom is not None
    assert oom.cause == "fragmentation"


@pytest.mark.parametrize(
    ("severity", "rank", "is_told"),
    [("error", None, True), ("warning", None, True), ("info", None, False), ("error", 3, False)],
)
def test_the_verdict_tells_what_a_finding_warns_of(severity: str, rank: int | None, is_told: bool) -> None:
    finding = Finding(
        slug="leak",
        severity=severity,
        title="Memory grows",
        evidence={},
        change="",
        cost="",
        saves_bytes=None,
        saves_ns=None,
        new_peak_bytes=None,
        rank=rank,
        where={"file": "train.py", "line": 7, "function": "main", "module": None},
    )
    ranks = analyze(trace(rank_trace(events=event_rows([("alloc", 1, 100)]), windows=[window(0, 1, initial=0)]))).ranks
    assert verdict(ranks, [finding]).endswith(" Memory grows (train.py:7).") == is_told


def test_oom_comes_first_in_the_verdict() -> None:
    verdict = analyze(trace(small_run(), oom_rank(free=10, request=200, unallocated=50))).verdict
    assert "Out of memory" in verdict
    assert "200 B" in verdict


def test_snapshot_without_history_has_its_end_as_peak() -> None:
    rank = rank_trace(
        source="snapshot",
        segments=[segment(0, 100, 60)],
        blocks=[
            block(0, 0, 50, "active_allocated"),
            block(0, 50, 10, "active_pending_free"),
            block(0, 60, 40, "inactive"),
        ],
    )
    report = report_of(rank)
    assert (report.peak.requested_bytes, report.peak.allocated_bytes, report.peak.pending_free_bytes) == (50, 60, 10)
    assert (report.peak.time_ns, report.peak.step, report.peak.reserved_bytes) == (None, None, 100)
    assert report.end.by_category == {"unknown": 50}
    assert "no-history" in [note.slug for note in report.warnings]
    assert report.timeline is None


def test_every_device_of_a_snapshot_has_a_report_of_its_own() -> None:
    rank = rank_trace(
        source="snapshot",
        events=[*event_rows([(A, 1, 5)], device="cuda:1"), *event_rows([(A, 1, 9)], device="cuda:0")],
        windows=[window(0, 1), window(1, 1)],
        segments=[segment(1, 10, 5, device="cuda:1"), segment(1, 20, 9), segment(1, 30, 0, device="cuda:2")],
    )
    found = analyze(trace(rank)).ranks
    assert [(one.device, one.peak.requested_bytes, one.end.reserved_bytes) for one in found] == [
        ("cuda:0", 9, 20),
        ("cuda:1", 5, 10),
        ("cuda:2", 0, 30),
    ]


def test_rank_that_recorded_no_memory_has_a_report_without_figures() -> None:
    report = report_of(rank_trace(source="kineto"))
    assert (report.peak.requested_bytes, report.end.allocated_bytes) == (None, None)


def test_capacity_given_stands_in_for_that_of_the_trace() -> None:
    rank = small_run(header={"devices": [{"name": "cpu", "capacity_bytes": 10_000}]})
    assert report_of(rank).capacity_bytes == 10_000
    assert report_of(rank, capacity_bytes=2_000).capacity_bytes == 2_000


def test_incomplete_recording_is_noted() -> None:
    assert "incomplete" in [note.slug for note in report_of(small_run(header={"complete": False})).warnings]


def test_gaps_and_lost_events_are_noted() -> None:
    rank = small_run(windows=[window(0, 2, initial=0), window(2, 3, initial=1500, lost=4)])
    notes = {note.slug: note.count for note in report_of(rank).warnings}
    assert (notes["gaps"], notes["events-lost"]) == (1, 4)
