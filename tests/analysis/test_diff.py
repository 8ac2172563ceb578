"""Two reports compared: differences of categories, modules, steps and stacks are those of the events, and add up."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memtrace.analysis.asked.diff import compare
from memtrace.analysis.report import analyze
from memtrace.analysis.results.report import Report
from tests.analysis.small_trace import event_rows, owner, rank_trace, scope, step, trace, window


def report(parameter: int, other: int, *, rank: int | None = None, device: str = "cpu", **tables: Any) -> Report:
    """Return the report of a run that holds a parameter through two steps, and in the second something more."""
    events = event_rows(
        [("alloc", 1, parameter), ("alloc", 2, other), ("free_completed", 2, other)], device=device, stack=None
    )
    rows: dict[str, Any] = {
        "events": events,
        "windows": [window(0, 3, initial=0)],
        "steps": [step(0, 0, 8), step(1, 8, 15), step(2, 15, 40)],
        "scopes": [scope("head", 18, 25)],
        "owners": [owner(15, 1, parameter, "parameter", device=device)],
    }
    return analyze(trace(rank_trace(header={"rank": rank}, **(rows | tables))))


@given(st.tuples(*[st.integers(1, 10**6)] * 4))
def test_differences_are_b_less_a_and_add_up(sizes: tuple[int, int, int, int]) -> None:
    weight_a, more_a, weight_b, more_b = sizes
    (rank,) = compare(report(weight_a, more_a), report(weight_b, more_b)).ranks
    assert (rank.peak_a_bytes, rank.peak_b_bytes) == (weight_a + more_a, weight_b + more_b)
    deltas = {one.name: one.delta_bytes for one in rank.categories}
    assert deltas["parameter"] == weight_b - weight_a
    assert sum(deltas.values()) == weight_b + more_b - weight_a - more_a
    assert rank.delta_by_category == {name: delta for name, delta in deltas.items() if delta}
    assert {one.name: one.delta_bytes for one in rank.modules} == {
        name: delta for name, delta in (("head", more_b - more_a), (None, weight_b - weight_a)) if delta
    }
    assert [(one.step, one.delta_bytes) for one in rank.steps] == [
        (1, weight_b - weight_a),
        (2, weight_b + more_b - weight_a - more_a),
    ]


def test_a_report_does_not_differ_from_itself() -> None:
    same = report(100, 50)
    found = compare(same, same)
    assert found.verdict.startswith("The peak is the same")
    (rank,) = found.ranks
    assert (rank.modules, rank.stacks, rank.delta_by_category) == ((), (), {})


def test_a_step_that_one_side_lacks_has_no_difference() -> None:
    short = report(100, 50, steps=[step(0, 0, 8), step(1, 8, 40)])
    (rank,) = compare(short, report(100, 50)).ranks
    missing = rank.steps[-1]
    assert (missing.step, missing.a_bytes, missing.b_bytes, missing.delta_bytes) == (2, None, 150, None)


def stacked(line: int, num_bytes: int) -> Report:
    """Return the report of one allocation in `forward`, called from `main`, at a line."""
    frames = [
        {"file": "gpt.py", "line": line + 40, "function": "main"},
        {"file": "gpt.py", "line": line, "function": "forward"},
    ]
    stacks = [{"frame": 0, "parent": None}, {"frame": 1, "parent": 0}]
    events = event_rows([("alloc", 1, num_bytes)], stack=1)
    return analyze(trace(rank_trace(events=events, windows=[window(0, 1, initial=0)], frames=frames, stacks=stacks)))


@pytest.mark.parametrize("moved_by", [0, 7])
def test_stacks_are_matched_though_the_code_has_moved(moved_by: int) -> None:
    (rank,) = compare(stacked(30, 100), stacked(30 + moved_by, 160)).ranks
    (row,) = rank.stacks
    assert (row.a_bytes, row.b_bytes, row.delta_bytes) == (100, 160, 60)
    assert row.frames[0].startswith("gpt.py:")
    assert row.frames[0].endswith(" forward")


def test_stacks_that_moved_and_are_as_large_do_not_differ() -> None:
    (rank,) = compare(stacked(30, 100), stacked(37, 100)).ranks
    assert rank.stacks == ()


def test_lines_that_both_recorded_have_not_moved() -> None:
    both = ("gpt.py:30 forward", "gpt.py:37 forward", "gpt.py:70 main", "gpt.py:77 main")
    sides = [stacked(line, size) for line, size in ((30, 100), (37, 160))]
    knowing = [
        dataclasses.replace(one, ranks=tuple(dataclasses.replace(rank, program_lines=both) for rank in one.ranks))
        for one in sides
    ]
    (rank,) = compare(*knowing).ranks
    assert {(row.frames[0], row.a_bytes, row.b_bytes) for row in rank.stacks} == {(both[0], 100, 0), (both[1], 0, 160)}


def test_ranks_are_matched_by_number_and_the_others_are_named() -> None:
    two = analyze(
        trace(
            *(
                rank_trace(
                    header={"rank": number},
                    events=event_rows([("alloc", 1, 10 + number)]),
                    windows=[window(0, 1, initial=0)],
                )
                for number in (0, 1)
            )
        )
    )
    found = compare(two, report(100, 50, rank=1))
    assert [one.rank for one in found.ranks] == [1]
    assert (found.only_in_a, found.only_in_b) == (("rank 0 cpu",), ())


def test_another_device_is_still_compared() -> None:
    found = compare(report(100, 50), report(100, 70, device="cuda:0"))
    (rank,) = found.ranks
    assert (rank.device_a, rank.device_b) == ("cpu", "cuda:0")
    assert rank.compares == "requested"
    assert rank.peak_b_bytes == 170
    assert (found.only_in_a, found.only_in_b) == ((), ())


def test_the_curve_places_times_within_their_steps() -> None:
    (rank,) = compare(report(100, 50), report(100, 50)).ranks
    assert rank.curve_a is not None
    # Steps 1 and 2 run from 8 to 15 and from 15 to 40 ns; the events are at 10, 20 and 30.
    assert list(rank.curve_a.steps) == pytest.approx([1 + 2 / 7, 2 + 5 / 25, 2 + 15 / 25])
    assert rank.curve_a.num_bytes.tolist() == [100, 150, 100]
