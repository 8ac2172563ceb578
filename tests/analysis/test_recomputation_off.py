"""Checkpointing that is off after an evaluation: the step from which on it is, also where that was not recorded."""

from __future__ import annotations

from typing import Any

import pytest

from memtrace.analysis.advice.case import Case
from memtrace.analysis.device.device_history import build_history
from memtrace.analysis.faults.recomputation_off import recomputation_off
from memtrace.analysis.results.report import Finding
from tests.analysis.small_trace import Event, event_rows, phase, rank_trace, step, window

LOW, HIGH = 1000, 3000


def found_with(marks: dict[int, int]) -> Finding | None:
    """Return what is found of six steps, of which the first two compute again and the last does not.

    Those between were not recorded; they have the marks that are given.
    """
    recorded = {1: LOW, 2: LOW, 6: HIGH}
    events: list[Event] = []
    phases: list[dict[str, Any]] = []
    for number, size in recorded.items():
        first = 10 * (len(events) + 1)
        names = ("forward", "backward") if size == HIGH else ("forward", "backward", "recompute")
        phases += [phase(name, number, first + at, first + at + 1) for at, name in enumerate(names)]
        events += [("alloc", number, size), ("free_completed", number, size)]
    ends = {0: 5, 1: 25, 2: 45, 3: 46, 4: 47, 5: 48, 6: 70}
    steps = [
        step(
            number, ends.get(number - 1, 0), end, recorded=number in (0, *recorded), high_water_bytes=marks.get(number)
        )
        for number, end in ends.items()
    ]
    rank = rank_trace(
        events=event_rows(events),
        windows=[window(0, 4, initial=0), window(4, 2, initial=0)],
        steps=steps,
        phases=phases,
    )
    return recomputation_off(Case(build_history(rank, "cpu", owns_marks=True)))


@pytest.mark.parametrize(
    ("marks", "first"),
    [
        ({}, 6),
        ({3: HIGH, 4: HIGH, 5: HIGH}, 3),
        ({3: HIGH}, 3),
        ({3: LOW, 4: HIGH, 5: HIGH}, 4),
        ({3: HIGH, 4: LOW, 5: HIGH}, 5),
    ],
    ids=["no marks", "from the evaluation on", "a counter says it once", "later", "one large batch before"],
)
def test_the_marks_of_steps_that_were_not_recorded_say_from_which_on(marks: dict[int, int], first: int) -> None:
    found = found_with(marks)
    assert found is not None
    assert (found.evidence["last_step_with"], found.evidence["first_step_without"]) == (2, first)
    assert (f"is not from step {first} on" in found.title) == (first == 3)
    assert found.new_peak_bytes == LOW
