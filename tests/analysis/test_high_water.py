"""Steps that were not recorded: the verdict says of which it speaks, and a capacity is judged by the marks of all."""

from __future__ import annotations

import pytest

from memtrace.analysis.rank_analysis import RankAnalysis, analyze_rank
from memtrace.analysis.sentences.verdict import verdict
from memtrace.store.trace import RankTrace
from tests.analysis.small_trace import event_rows, rank_trace, step, window

PEAK, MARK = 1000, 5000
"""Bytes of the step that was recorded, and of one that was not."""


def run(*unrecorded: int | None, source: str = "cpu_profiler") -> RankTrace:
    """Return a run of one recorded step and then one a mark, not recorded."""
    rows = event_rows([("alloc", 1, PEAK), ("free_completed", 1, PEAK)])
    steps = [step(0, 0, 5), step(1, 5, 25)]
    for at, mark in enumerate(unrecorded):
        steps.append(step(at + 2, 25 + 10 * at, 35 + 10 * at, recorded=False, high_water_bytes=mark))
    return rank_trace(
        header={"sources": {"events": source}}, events=rows, windows=[window(0, 2, initial=0)], steps=steps
    )


def analysis(trace: RankTrace, capacity: int | None = None) -> RankAnalysis:
    return analyze_rank(trace, {}, capacity_bytes=capacity)


def test_a_step_with_a_higher_mark_is_named() -> None:
    found = analysis(run(200, MARK, 300)).devices
    assert found[0].unrecorded is not None
    assert (found[0].unrecorded.higher_step, found[0].unrecorded.higher_bytes) == (3, MARK)
    sentence = verdict(found)
    assert ", of the recorded steps" in sentence
    assert "Step 3, which was not recorded, reached 4.88 KiB" in sentence


def test_marks_that_are_all_lower_leave_the_peak_that_of_the_run() -> None:
    found = analysis(run(200, 300)).devices
    assert found[0].unrecorded is not None
    assert found[0].unrecorded.higher_step is None
    assert "of the recorded steps" not in verdict(found)


def test_without_marks_the_verdict_speaks_of_the_recorded_steps() -> None:
    assert ", of the recorded steps" in verdict(analysis(run(None, None)).devices)


@pytest.mark.parametrize(("capacity", "dies_in"), [(PEAK - 1, 1), (PEAK, 3), (MARK - 1, 3), (MARK, None)])
def test_a_capacity_is_judged_by_the_marks_of_all_steps(capacity: int, dies_in: int | None) -> None:
    oom = analysis(run(200, MARK), capacity).devices[0].oom
    assert (None if oom is None else oom.step) == dies_in


def test_a_step_that_is_known_by_its_mark_alone_is_said_to_be() -> None:
    found = analysis(run(200, MARK), PEAK).devices
    sentence = verdict(found)
    assert "would have died in step 3, which was not recorded" in sentence
    oom = found[0].oom
    assert oom is not None
    assert oom.missing_bytes == MARK - PEAK


def test_marks_are_those_of_the_device_that_was_recorded() -> None:
    trace = run(MARK, source="torch_snapshot")
    assert analysis(trace).devices[0].steps[1].high_water_bytes is None
