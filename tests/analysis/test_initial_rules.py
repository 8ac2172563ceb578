"""Blocks that were live before a stretch of recording began: carried on, or gradients of the step before."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest

from memtrace.analysis.attribution.attribute import CATEGORIES, DECISIONS
from memtrace.analysis.device.device_history import build_history
from tests.analysis.small_trace import Event, event_rows, initial_block, owner, phase, rank_trace, step, window
from tests.analysis.test_lifetimes import A, C

DATA, WEIGHT, OTHER_WEIGHT = 640, 100, 60
PARAMETERS = [(901, WEIGHT), (902, WEIGHT), (903, OTHER_WEIGHT)]
"""Addresses and sizes of the parameters, which are in memory that nobody recorded."""


def decided(
    blocks: Sequence[tuple[int, int]],
    second: Sequence[Event] = (),
    *,
    first: Sequence[Event] = ((A, 1, DATA),),
    **more: Any,
) -> dict[int, tuple[str, str]]:
    """Return category and decision of the blocks of a second stretch by address.

    The first stretch has steps 1 and 2 (to 200), the second one step 9: events are 10 ns apart from 1000 on, forward
    begins at 1025, backward at 1065.
    """
    early = [*first, (A, 77, 1), (C, 77, 1)]
    late = [*second, (A, 77, 1), (C, 77, 1)]
    rows = event_rows([*early, *late])
    for number, row in enumerate(rows[: len(early)]):
        row["time_ns"] = 10 + number
    rows[len(early) - 1]["time_ns"] = 300
    for number, row in enumerate(rows[len(early) :]):
        row["time_ns"] = 1000 + 10 * number
    tables: dict[str, Sequence[Mapping[str, Any]]] = {
        "events": rows,
        "windows": [
            window(0, len(early), initial=0) | {"start_ns": 1, "end_ns": 310},
            window(len(early), len(late)) | {"start_ns": 990, "end_ns": 1200},
        ],
        "initial_blocks": [initial_block(address, size, window=1) for address, size in blocks],
        "steps": [step(0, 0, 95), step(1, 95, 150), step(2, 150, 200), step(9, 980, 1100)],
        "phases": [
            phase("forward", 1, 100, 120),
            phase("backward", 1, 120, 140),
            phase("forward", 9, 1025, 1065),
            phase("backward", 9, 1065, 1090),
        ],
        "owners": [owner(1101, address, size, "parameter") for address, size in PARAMETERS],
    }
    history = build_history(rank_trace(**(tables | more)), "cpu", owns_marks=True)
    found, lifetimes = history.attribution, history.lifetimes
    start = history.moments.epochs[-1].start
    return {
        int(lifetimes.address[row]): (CATEGORIES[found.category[row]].value, DECISIONS[found.decision[row]].value)
        for row in range(len(lifetimes))
        if lifetimes.is_initial[row] and lifetimes.start[row] == start
    }


INFERRED = "lifetime_rule"
UNKNOWN = ("unknown", "unknown")


def test_data_that_stays_is_data_after_a_gap() -> None:
    assert decided([(1, DATA)]) == {1: ("input", INFERRED)}


@pytest.mark.parametrize(
    ("block", "first"),
    [
        ((1, DATA + 1), [(A, 1, DATA)]),
        ((2, DATA), [(A, 1, DATA)]),
        ((1, DATA), [(A, 1, DATA), (C, 1, DATA)]),
        ((1, DATA), []),
    ],
    ids=["another size", "another address", "freed before the gap", "never seen before"],
)
def test_what_is_not_the_same_block_stays_unknown(block: tuple[int, int], first: list[Event]) -> None:
    assert decided([block], first=first) == {block[0]: UNKNOWN}


def test_what_was_short_lived_before_a_gap_may_be_something_else_after_it() -> None:
    """An output of the last step before the gap: the next step's may well have its address."""
    steps = [step(0, 0, 5), step(2, 5, 200), step(9, 980, 1100)]
    assert decided([(1, DATA)], steps=steps) == {1: UNKNOWN}


def test_an_owner_is_stronger() -> None:
    owners = [owner(1101, 901, WEIGHT, "parameter"), owner(1101, 1, DATA, "buffer")]
    assert decided([(1, DATA)], owners=owners) == {1: ("buffer", "owner")}


GRADIENTS = [(11, WEIGHT), (12, WEIGHT), (13, OTHER_WEIGHT)]


def test_gradients_are_told_by_their_sizes_and_by_being_dropped() -> None:
    """Two in the gap before forward, one in it: zero_grad may stand in either place."""
    drops: list[Event] = [(C, address, size) for address, size in GRADIENTS]
    assert decided(GRADIENTS, drops) == dict.fromkeys((11, 12, 13), ("gradient", INFERRED))


def test_one_more_or_less_of_a_size_proves_nothing_about_that_size() -> None:
    drops: list[Event] = [(C, address, size) for address, size in GRADIENTS]
    one_less = decided(GRADIENTS[1:], drops[1:])
    assert one_less == {12: UNKNOWN, 13: ("gradient", INFERRED)}
    one_more = decided([*GRADIENTS, (14, OTHER_WEIGHT)], [*drops, (C, 14, OTHER_WEIGHT)])
    assert one_more == {11: ("gradient", INFERRED), 12: ("gradient", INFERRED), 13: UNKNOWN, 14: UNKNOWN}


def test_what_the_backward_finds_is_not_dropped() -> None:
    late: list[Event] = [(A, 50 + number, 1) for number in range(8)]
    drops: list[Event] = [(C, address, size) for address, size in GRADIENTS]
    assert decided(GRADIENTS, [*late, *drops]) == dict.fromkeys((11, 12, 13), UNKNOWN)


def test_a_stretch_that_begins_inside_a_phase_tells_nothing() -> None:
    drops: list[Event] = [(C, address, size) for address, size in GRADIENTS]
    phases = [phase("forward", 9, 980, 1065), phase("backward", 9, 1065, 1090)]
    assert decided(GRADIENTS, drops, phases=phases) == dict.fromkeys((11, 12, 13), UNKNOWN)


def test_gradients_beside_a_frozen_twin_are_as_many_as_were_seen() -> None:
    owners = [owner(1101, address, size, "parameter") for address, size in PARAMETERS]
    owners += [owner(1101, 10 + address, size, "parameter") for address, size in PARAMETERS]
    blocks = [(801, WEIGHT), (802, WEIGHT), (803, OTHER_WEIGHT)]
    dropped = [(C, address, size) for address, size in blocks]
    assert set(decided(blocks, dropped, owners=owners).values()) == {("unknown", "unknown")}
    owners += [owner(150, 20 + address, size, "gradient") for address, size in PARAMETERS]
    assert set(decided(blocks, dropped, owners=owners).values()) == {("gradient", "lifetime_rule")}


def test_what_an_attribute_holds_until_after_the_next_step_is_an_output_after_a_gap_too() -> None:
    """`self.out = out` after the optimizer: the old one goes when the new one comes, behind the end of the step."""
    times = {"out 9": 1030, "old": 1095, "out 10": 1130, "out 9 goes": 1195, "end": 1199}
    events = [("alloc", 7, 1), ("alloc", 2, 400), ("free_completed", 1, 400), ("alloc", 3, 400)]
    events += [("free_completed", 2, 400), ("free_completed", 7, 1)]
    rows = event_rows(events)
    for row, at in zip(rows, (5, *times.values()), strict=True):
        row["time_ns"] = at
    rank = rank_trace(
        events=rows,
        windows=[
            window(0, 1, initial=0) | {"start_ns": 1, "end_ns": 6},
            window(1, 5) | {"start_ns": 1000, "end_ns": 1200},
        ],
        initial_blocks=[initial_block(1, 400, window=1)],
        steps=[step(0, 0, 2), step(9, 1000, 1090), step(10, 1090, 1190)],
        phases=[
            *[phase("forward", 9, 1020, 1040), phase("backward", 9, 1040, 1060)],
            *[phase("forward", 10, 1120, 1140), phase("backward", 10, 1140, 1160)],
        ],
        owners=[owner(1101, 900, 999, "parameter")],
    )
    history = build_history(rank, "cpu", owns_marks=True)
    old = np.flatnonzero(history.lifetimes.address == 1)
    assert [CATEGORIES[one].value for one in history.attribution.category[old]] == ["activation"]
