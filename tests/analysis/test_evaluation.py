"""Evaluation beside training: when it ran, its peak and that of training, and the words for it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from memtrace.analysis.advice.batch import smaller_micro_batch
from memtrace.analysis.advice.case import Case
from memtrace.analysis.attribution.attribute import CATEGORIES
from memtrace.analysis.device.device_history import DeviceHistory, build_history
from memtrace.analysis.device.evaluation import evaluation_result
from memtrace.analysis.device.marks import phase_at
from memtrace.analysis.events.evaluations import NEVER, evaluation_stretches
from memtrace.analysis.events.innermost import Spans
from memtrace.analysis.faults.evaluation import evaluation_outputs
from memtrace.analysis.report import analyze
from tests.analysis.small_trace import Event, event_rows, owner, phase, rank_trace, step, trace, window
from tests.analysis.test_lifetimes import A, C


def stretches(*phases: tuple[str, int, int | None]) -> list[list[int]]:
    """Return the stretches of evaluation among these phases."""
    rank = rank_trace(phases=[phase(name, 1, start, end) for name, start, end in phases])
    table = rank.table("phases")
    return evaluation_stretches(rank, Spans.build(table["start_ns"], table["end_ns"])).tolist()


@pytest.mark.parametrize(
    ("phases", "expected"),
    [
        ([("forward", 1, 2), ("backward", 2, 3)], []),
        ([("evaluation", 1, 2), ("forward", 5, 6)], [[1, 5]]),
        ([("evaluation", 1, 2), ("data", 2, 3), ("evaluation", 3, 4), ("data", 6, 7), ("forward", 8, 9)], [[1, 6]]),
        ([("evaluation", 1, 2), ("evaluation", 4, 5), ("optimizer", 6, 7), ("evaluation", 8, 9)], [[1, 6], [8, NEVER]]),
        ([("data", 1, 2), ("evaluation", 3, None)], [[3, NEVER]]),
        ([("forward", 1, 9), ("evaluation", 3, 4)], []),
    ],
)
def test_an_evaluation_lasts_from_its_first_forward_to_what_is_none(
    phases: list[tuple[str, int, int | None]], expected: list[list[int]]
) -> None:
    assert stretches(*phases) == expected


_BATCH, _OUTPUT, _TOGETHER = 64, 100, 220
_EVENTS: list[Event] = [
    *[(A, 1, _BATCH), (A, 2, 50), (A, 3, 30), (C, 3, 30), (C, 2, 50), (C, 1, _BATCH)],
    # Two batches, and what becomes of both after the second.
    *[(A, 4, _BATCH), (A, 5, _OUTPUT), (C, 4, _BATCH), (A, 6, _BATCH), (A, 7, _OUTPUT), (C, 6, _BATCH)],
    *[(A, 8, _TOGETHER), (C, 8, _TOGETHER), (C, 5, _OUTPUT), (C, 7, _OUTPUT)],
    *[(A, 9, _BATCH), (C, 9, _BATCH)],
]


def tables() -> dict[str, Any]:
    """Return the marks of a step, an evaluation of two batches, and another step; event number i is at 10 * (i + 1)."""
    batches = [(15, 1, "4x4"), (75, 4, "7x4"), (105, 6, "7x4"), (175, 9, "4x4")]
    return {
        "events": event_rows(_EVENTS),
        "windows": [window(0, len(_EVENTS), initial=0)],
        "steps": [step(0, 0, 5), step(1, 5, 65), step(2, 65, 200)],
        "phases": [
            *[phase("forward", 1, 15, 35), phase("backward", 1, 35, 55)],
            *[phase("evaluation", 2, 75, 85), phase("evaluation", 2, 105, 115)],
            *[phase("forward", 2, 175, 178), phase("backward", 2, 178, 185)],
        ],
        "owners": [
            owner(time, address, _BATCH, "input") | {"shape": shape, "step": 1 + (time > 65)}
            for time, address, shape in batches
        ],
    }


def history() -> DeviceHistory:
    """Return what memtrace makes of them."""
    return build_history(rank_trace(**tables()), "cpu", owns_marks=True)


def test_evaluation_and_training_have_a_peak_each() -> None:
    found = evaluation_result(history())
    assert found is not None
    assert found.peak.requested_bytes == 2 * _OUTPUT + _TOGETHER
    assert (found.peak.phase, found.batch, found.num_stretches) == ("evaluation", 7, 1)
    assert found.training_peak is not None
    assert (found.training_peak.requested_bytes, found.training_peak.step) == (_BATCH + 50 + 30, 1)


def test_what_no_phase_covers_after_an_evaluation_is_of_it() -> None:
    found = history()
    assert [phase_at(found, time) for time in (60, 70, 95, 135, 174, 190)] == [None, None, *["evaluation"] * 3, None]


def test_the_verdict_says_that_the_peak_is_in_evaluation_and_what_training_needs() -> None:
    report = analyze(trace(rank_trace(**tables())))
    assert report.verdict.startswith(
        "Memory peaks at 420 B during evaluation in step 2 (batch 7; training peaks at 144 B)"
    )


def test_without_evaluation_there_is_nothing_to_say_of_it() -> None:
    rank = tables()
    rank["phases"] = [row for row in rank["phases"] if row["phase"] != "evaluation"]
    assert evaluation_result(build_history(rank_trace(**rank), "cpu", owns_marks=True)) is None


def micro_batch_of(addresses: list[int], *, phases: tuple[str, ...] = ("forward", "backward")) -> int | None:
    """Return the micro-batch of the advice in a loop whose steps take in these blocks, and make what is as large."""
    events: list[Event] = [(A, one, 400) for one in sorted(set(addresses))]
    made: dict[str, list[dict[str, Any]]] = {"steps": [step(0, 0, 1)], "phases": [], "owners": []}
    for number, address in enumerate(addresses, start=1):
        began = 10 * len(events) + 5
        made["owners"].append(owner(began + 1, address, 400, "input") | {"step": number, "shape": "10x10"})
        events += [(A, 100 + number, 4000), (C, 100 + number, 4000)]
        made["phases"].append(phase(phases[0], number, began, began + 11))
        made["phases"].append(phase(phases[1], number, began + 11, began + 20))
        made["steps"].append(step(number, began, began + 20))
    rank = rank_trace(events=event_rows(events), windows=[window(0, len(events), initial=0)], **made)
    found = smaller_micro_batch(Case(build_history(rank, "cpu", owns_marks=True)))
    return None if found is None else found.evidence["micro_batch"]


def test_an_input_that_is_the_same_each_step_is_no_batch_to_make_smaller() -> None:
    assert micro_batch_of([1, 2, 3]) == 10
    assert micro_batch_of([1, 1, 1]) is None


def test_a_batch_of_an_evaluation_is_not_that_of_the_training() -> None:
    assert micro_batch_of([1, 2, 3], phases=("evaluation", "data")) is None


def collected(num_places: int, num_batches: int, *, after: bool = False) -> list[str]:
    """Return the findings of a rollout in which so many models go over so many batches, and all outputs stay.

    With `after` the program computes them of what the modules returned: probabilities, decoded boxes.
    """
    calls = [(batch, place) for batch in range(num_batches) for place in range(num_places)]
    events: list[Event] = [(A, 1, 1000), (C, 1, 1000)]
    events += [(A, 10 + at, 4000) for at in range(len(calls))] + [(C, 10 + at, 4000) for at in range(len(calls))]
    rows = event_rows(events)
    for at, (_, place) in enumerate(calls):
        rows[2 + at]["stack"] = place
    times = [(21 if after else 25) + 10 * at for at in range(len(calls))]
    rank = rank_trace(
        events=rows,
        windows=[window(0, len(events), initial=0)],
        steps=[step(0, 0, 5), step(1, 5, 22), step(2, 22, 10 * len(events) + 20)],
        phases=[phase("forward", 1, 8, 15), *(phase("evaluation", 2, time, time + 7) for time in times)],
        frames=[{"file": "train.py", "line": 3 + place, "function": "rollout"} for place in range(num_places)],
        stacks=[{"frame": place, "parent": None} for place in range(num_places)],
    )
    history = build_history(rank, "cpu", owns_marks=True)
    found = evaluation_outputs(Case(history))
    kept = np.flatnonzero(history.lifetimes.size_bytes == 4000)
    categories = {CATEGORIES[one].value for one in history.attribution.category[kept[: -2 * num_places]]}
    return [] if found is None else [found.slug, *sorted(categories)]


def test_several_models_that_a_batch_goes_through_are_no_batches() -> None:
    assert collected(num_places=1, num_batches=4) == ["evaluation-outputs", "activation"]
    assert collected(num_places=2, num_batches=4) == ["evaluation-outputs", "activation"]
    assert collected(num_places=4, num_batches=1) == []
    assert collected(num_places=4, num_batches=2) == []


def test_what_the_program_makes_of_outputs_and_keeps_is_collected_and_no_input() -> None:
    assert collected(num_places=1, num_batches=5, after=True) == ["evaluation-outputs", "activation"]
    assert collected(num_places=1, num_batches=2, after=True) == []


def test_what_is_replaced_while_evaluation_goes_on_is_not_collected() -> None:
    """Keys and values of a generation: three layers have some at a time, larger with each token."""
    events: list[Event] = [(A, 1, 1000), (C, 1, 1000)]
    for token in range(6):
        for layer in range(3):
            events.append((A, 10 * token + layer + 10, 4000 + 400 * token))
            if token:
                events.append((C, 10 * token + layer, 3600 + 400 * token))
    calls = [10 * (at + 1) - 8 for at, (action, *_) in enumerate(events) if at >= 2 and action == A]
    rank = rank_trace(
        events=event_rows(events),
        windows=[window(0, len(events), initial=0)],
        steps=[step(0, 0, 5), step(1, 5, 20), step(2, 20, 10 * len(events) + 20)],
        phases=[phase("forward", 1, 8, 15), *(phase("evaluation", 2, time, time + 5) for time in calls)],
    )
    assert evaluation_outputs(Case(build_history(rank, "cpu", owns_marks=True))) is None
