"""Optimizer steps that raise, told from the named ranges that torch runs them in."""

from __future__ import annotations

from memtrace.hooks.loop.phases import PhaseClock
from memtrace.hooks.loop.step_calls import StepCalls
from memtrace.hooks.parts.chunk import Row
from memtrace.schema.names import Phase

RANGE = "Optimizer.step#SGD.step"


def test_a_step_that_came_to_its_end_has_not_failed() -> None:
    calls = StepCalls()
    for _ in range(2):
        calls.enter(RANGE)
        calls.begin()
        calls.end()
        assert not calls.leave(RANGE)


def test_a_step_whose_range_is_left_before_its_end_has_failed() -> None:
    calls = StepCalls()
    calls.enter(RANGE)
    calls.begin()
    assert not calls.leave("a range of the program's inside")
    assert calls.leave(RANGE)
    assert not calls.leave(RANGE)


def test_an_optimizer_inside_another_fails_alone() -> None:
    calls = StepCalls()
    calls.enter(RANGE)
    calls.begin()
    calls.enter(RANGE)
    calls.begin()
    assert calls.leave(RANGE)
    calls.end()
    assert not calls.leave(RANGE)


def test_a_class_whose_step_calls_that_of_its_base_class_is_two_ranges() -> None:
    calls = StepCalls()
    calls.enter(RANGE)
    calls.begin()
    calls.enter(RANGE)
    assert not calls.leave(RANGE)  # a step that our hooks never saw begin
    assert calls.leave(RANGE)


def test_what_a_failed_step_left_open_ends_with_it() -> None:
    rows: list[Row] = []
    phases = PhaseClock(rows.append)
    phases.start_step(1)
    phases.begin(Phase.OPTIMIZER, 10, "LBFGS")
    phases.forward(11)
    phases.begin(Phase.OTHER, 12, "evaluation")
    phases.abandon(Phase.OPTIMIZER, 20)
    assert {(row[0], row[4]) for row in rows} == {("optimizer", 20), ("other", 20), ("forward", 12)}
    phases.abandon(Phase.OPTIMIZER, 30)
    assert not phases.inside
    assert len(rows) == 3
