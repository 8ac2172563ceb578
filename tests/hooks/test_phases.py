"""The clock of phases, on a fake clock."""

from __future__ import annotations

import pytest

from memtrace.hooks.loop.phases import PhaseClock
from memtrace.hooks.parts.chunk import Row
from memtrace.schema.names import Phase


def clock() -> tuple[PhaseClock, list[Row]]:
    """Return a clock in step 1 and the rows that it emits."""
    rows: list[Row] = []
    made = PhaseClock(rows.append)
    made.start_step(1)
    return made, rows


def spans(rows: list[Row]) -> list[tuple[str, int, int, int | None]]:
    """Return phase, microbatch, start and end of each row."""
    return [(row[0], row[2], row[3], row[4]) for row in rows]


def test_forward_lasts_until_backward_begins() -> None:
    phases, rows = clock()
    phases.forward(10)
    phases.forward(15)
    phases.begin(Phase.BACKWARD, 20)
    phases.end(30)
    assert spans(rows) == [("forward", 0, 10, 20), ("backward", 0, 20, 30)]
    assert phases.num_microbatches == 1


def test_a_forward_after_a_backward_begins_the_next_microbatch() -> None:
    phases, rows = clock()
    for start in (0, 10):
        phases.forward(start)
        phases.begin(Phase.BACKWARD, start + 4)
        phases.end(start + 6)
    assert [(row[0], row[2]) for row in rows] == [("forward", 0), ("backward", 0), ("forward", 1), ("backward", 1)]
    assert phases.num_microbatches == 2


def test_two_backwards_of_one_forward_are_one_microbatch() -> None:
    phases, _ = clock()
    phases.forward(0)
    for start in (1, 3):
        phases.begin(Phase.BACKWARD, start)
        phases.end(start + 1)
    assert phases.num_microbatches == 1


def test_a_nested_backward_does_not_end_the_microbatch() -> None:
    phases, _ = clock()
    phases.forward(0)
    phases.begin(Phase.BACKWARD, 1)
    phases.begin(Phase.BACKWARD, 2)
    phases.end(3)
    assert not phases.has_backward
    phases.end(4)
    assert phases.has_backward


def test_a_closure_nests_forward_and_backward_in_the_optimizer() -> None:
    phases, rows = clock()
    phases.begin(Phase.OPTIMIZER, 0, "LBFGS")
    phases.forward(1)
    assert phases.current is Phase.FORWARD
    phases.begin(Phase.BACKWARD, 2)
    phases.end(3)
    phases.end(4)
    assert spans(rows) == [("forward", 0, 1, 2), ("backward", 0, 2, 3), ("optimizer", 0, 0, 4)]
    assert rows[-1][5] == "LBFGS"


def test_what_is_open_at_the_end_is_written_without_an_end() -> None:
    phases, rows = clock()
    phases.begin(Phase.OPTIMIZER, 5)
    phases.forward(6)
    phases.flush()
    assert spans(rows) == [("optimizer", 0, 5, None), ("forward", 0, 6, None)]


def test_an_end_too_many_is_ignored() -> None:
    phases, rows = clock()
    phases.end(1)
    assert rows == []
    assert not phases.inside


@pytest.mark.parametrize("phase", [Phase.BACKWARD, Phase.OPTIMIZER, Phase.DATA])
def test_a_step_has_begun_with_a_forward_or_a_backward_and_with_nothing_else(phase: Phase) -> None:
    phases, _ = clock()
    assert not phases.has_begun
    phases.begin(phase, 1)
    assert phases.has_begun == (phase is Phase.BACKWARD)
    phases.end(2)
    phases.forward(3)
    phases.begin(Phase.DATA, 4)
    # What began it stays so, whatever comes after.
    assert phases.has_begun
    phases.start_step(2)
    assert not phases.has_begun
