"""Pairing: by hand on small cases, and against a slow plain reference on random histories."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from memtrace.analysis.events.lifetimes import Lifetimes, build_lifetimes
from memtrace.analysis.events.moments import build_moments
from memtrace.store.trace import RankTrace
from tests.analysis.small_trace import Event, event_rows, initial_block, rank_trace, window

A, R, C = "alloc", "free_requested", "free_completed"


def lifetimes_of(rank: RankTrace, device: str = "cpu") -> Lifetimes:
    return build_lifetimes(rank, device, build_moments(rank, device))


def spans(found: Lifetimes) -> set[tuple[int, int, int, int, int]]:
    columns = (found.address, found.size_bytes, found.start, found.in_use_end, found.end)
    return set(zip(*(column.tolist() for column in columns), strict=True))


def test_address_that_is_reused_is_two_allocations() -> None:
    events = event_rows([(A, 1, 10), (C, 1, 10), (A, 1, 7)])
    assert spans(lifetimes_of(rank_trace(events=events))) == {(1, 10, 1, 2, 2), (1, 7, 3, 4, 4)}


def test_block_is_in_use_until_its_free_is_requested() -> None:
    events = event_rows([(A, 1, 10), (R, 1, 10), (A, 2, 5), (C, 1, 10)], device="cuda:0")
    assert spans(lifetimes_of(rank_trace(events=events), "cuda:0")) == {(1, 10, 1, 2, 4), (2, 5, 3, 5, 5)}


def test_free_without_an_alloc_means_that_the_block_was_live_before() -> None:
    found = lifetimes_of(rank_trace(events=event_rows([(A, 1, 10), (C, 2, 5)])))
    assert spans(found) == {(1, 10, 1, 3, 3), (2, 5, 0, 2, 2)}
    assert found.is_initial.tolist() == [False, True]


def test_completion_without_a_request_was_pending_from_the_start() -> None:
    events = event_rows([(A, 1, 10), (R, 1, 10), (C, 1, 10), (C, 2, 5)], device="cuda:0")
    assert (2, 5, 0, 0, 4) in spans(lifetimes_of(rank_trace(events=events), "cuda:0"))


def test_gap_ends_everything_and_starts_from_its_own_blocks() -> None:
    rank = rank_trace(
        events=event_rows([(A, 1, 10), (A, 2, 5), (C, 2, 5)]),
        windows=[window(0, 1), window(1, 2)],
        initial_blocks=[initial_block(1, 10, window=1), initial_block(3, 7, window=1)],
    )
    # Moments: 0 start, 1 alloc, 2 start after the gap, 3 alloc, 4 free.
    assert spans(lifetimes_of(rank)) == {(1, 10, 1, 2, 2), (1, 10, 2, 5, 5), (3, 7, 2, 5, 5), (2, 5, 3, 4, 4)}


def test_window_that_continues_is_no_gap() -> None:
    rank = rank_trace(
        events=event_rows([(A, 1, 10), (C, 1, 10)]),
        windows=[window(0, 1), window(1, 1, continues=True)],
        initial_blocks=[initial_block(1, 10, window=1)],
    )
    assert spans(lifetimes_of(rank)) == {(1, 10, 1, 2, 2)}


def test_lost_free_ends_the_allocation_at_the_next_alloc() -> None:
    found = lifetimes_of(rank_trace(events=event_rows([(A, 1, 10), (A, 1, 7)])))
    assert spans(found) == {(1, 10, 1, 2, 2), (1, 7, 2, 3, 3)}
    assert found.num_unpaired == 1


def test_two_devices_may_use_one_address() -> None:
    rank = rank_trace(events=[*event_rows([(A, 1, 10)], device="cuda:0"), *event_rows([(A, 1, 7)], device="cuda:1")])
    assert spans(lifetimes_of(rank, "cuda:0")) == {(1, 10, 1, 2, 2)}
    assert spans(lifetimes_of(rank, "cuda:1")) == {(1, 7, 1, 2, 2)}


@st.composite
def histories(draw: st.DrawFn) -> tuple[dict[int, int], list[Event]]:
    """Blocks live before, and a history that an allocator could have made."""
    initial = draw(st.dictionaries(st.integers(1, 6), st.integers(1, 100), max_size=4))
    state, events = {address: (size, "live") for address, size in initial.items()}, []
    for address in draw(st.lists(st.integers(1, 6), max_size=40)):
        size, what = state.get(address, (0, "free"))
        if what == "free":
            size = draw(st.integers(1, 100))
            events.append((A, address, size))
            state[address] = (size, "live")
        elif what == "live":
            events.append((R, address, size))
            state[address] = (size, "pending")
        else:
            events.append((C, address, size))
            del state[address]
    return initial, events


def reference(initial: dict[int, int], events: list[Event]) -> set[tuple[int, int, int, int, int]]:
    """The same pairing, walked event by event."""
    never = len(events) + 1
    live = {address: (size, 0, never) for address, size in initial.items()}
    found = set()
    for moment, (action, address, size) in enumerate(events, start=1):
        if action == A:
            live[address] = (size, moment, never)
        elif action == R:
            live[address] = (*live[address][:2], moment)
        else:
            size, start, requested = live.pop(address)
            found.add((address, size, start, requested, moment))
    return found | {(address, size, start, end, never) for address, (size, start, end) in live.items()}


@settings(deadline=None)
@given(histories(), st.booleans())
def test_pairing_equals_a_plain_walk(history: tuple[dict[int, int], list[Event]], tell_initial: bool) -> None:
    initial, events = history
    freed = {address for action, address, _ in events if action == R}
    expected = reference(initial, events)
    blocks = [initial_block(address, size, device="cuda:0") for address, size in initial.items()]
    if not tell_initial:
        # A block that nothing tells of cannot be known; one that is freed can.
        blocks = []
        never = len(events) + 1
        expected = {one for one in expected if one[2] > 0 or one[3] < never}
    rank = rank_trace(
        events=event_rows(events, device="cuda:0"), windows=[window(0, len(events))], initial_blocks=blocks
    )
    found = lifetimes_of(rank, "cuda:0")
    assert spans(found) == expected
    assert found.num_unpaired == 0
    assert freed or found.has_free_requests is False
