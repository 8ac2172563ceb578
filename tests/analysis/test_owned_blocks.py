"""After a gap, blocks that nobody frees are known from their owners."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from memtrace.analysis.device.device_history import DeviceHistory, build_history
from memtrace.analysis.device.peak import state_at
from tests.analysis.small_trace import Event, event_rows, initial_block, owner, rank_trace, window
from tests.analysis.test_lifetimes import A, C

WEIGHT, PASSING = 100, 7


def history_of(
    *owners: dict[str, Any],
    first: Sequence[Event] = ((A, 1, WEIGHT),),
    blocks: Sequence[dict[str, Any]] = (),
    initial: int = WEIGHT,
) -> DeviceHistory:
    """Return a history of two stretches; in the second, from 1000 on, something comes and goes at address 2."""
    events = [*first, (A, 2, PASSING), (C, 2, PASSING)]
    rows = event_rows(events)
    rows[-2]["time_ns"], rows[-1]["time_ns"] = 1000, 1010
    windows = [
        window(0, len(first), initial=0),
        window(len(first), 2, initial=initial) | {"start_ns": 990, "end_ns": 1020},
    ]
    tables = {"events": rows, "windows": windows, "owners": owners, "initial_blocks": blocks}
    return build_history(rank_trace(**tables), "cpu", owns_marks=True)  # type: ignore[arg-type]


def test_a_parameter_that_nobody_frees_is_there_after_a_gap() -> None:
    history = history_of(owner(1015, 1, WEIGHT, "parameter"))
    start = history.moments.epochs[1].start
    for moment in (start, start + 1, history.last_moment):
        assert state_at(history, moment).by_category["parameter"] == WEIGHT
    assert history.levels.base.max() == 0
    assert history.levels.requested[start + 1] == WEIGHT + PASSING


@pytest.mark.parametrize(
    ("seen", "first"),
    [
        (owner(1015, 1, WEIGHT + 1, "parameter"), [(A, 1, WEIGHT)]),
        (owner(1015, 3, WEIGHT, "parameter"), [(A, 1, WEIGHT)]),
        (owner(1015, 1, WEIGHT, "parameter"), [(A, 1, WEIGHT), (C, 1, WEIGHT)]),
        (owner(15, 1, WEIGHT, "parameter"), [(A, 1, WEIGHT)]),
    ],
    ids=["another size", "never allocated: a mapped file", "freed before the gap", "seen before the gap only"],
)
def test_without_proof_it_stays_unknown(seen: dict[str, Any], first: list[Event]) -> None:
    history = history_of(seen, first=first)
    assert state_at(history, history.last_moment).by_category == {"unknown": WEIGHT}


def test_a_block_that_is_known_is_not_counted_twice() -> None:
    history = history_of(owner(1015, 1, WEIGHT, "parameter"), blocks=[initial_block(1, WEIGHT, window=1)])
    assert state_at(history, history.last_moment).by_category == {"parameter": WEIGHT, "unknown": 0}
    assert history.levels.overdrawn_bytes == 0
    # What came at an address in the stretch was not there before it.
    assert len(history_of(owner(1005, 2, PASSING, "buffer"), first=[(A, 2, PASSING)], initial=PASSING).lifetimes) == 2


@pytest.mark.parametrize("category", ["optimizer_state", "gradient"])
def test_states_and_gradients_that_were_made_in_the_gap_are_known_by_their_owner(category: str) -> None:
    history = history_of(owner(1015, 3, WEIGHT, category))
    assert state_at(history, history.last_moment).by_category == {"unknown": 0, category: WEIGHT}
    # What has an event in the stretch was not there from its start.
    seen = history_of(owner(1005, 2, PASSING, category))
    assert state_at(seen, seen.last_moment).by_category == {"unknown": WEIGHT}
