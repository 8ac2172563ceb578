"""Levels: categories add up, states never pass the peak, and what is not known is counted as unknown."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from memtrace.analysis.device.device_history import build_history
from memtrace.analysis.device.peak import peak_between, state_at
from memtrace.analysis.device.timeline import MAX_POINTS, build_timeline
from memtrace.analysis.report import analyze
from memtrace.store.trace import RankTrace
from tests.analysis.small_trace import (
    Event,
    event_rows,
    initial_block,
    owner,
    rank_trace,
    saved,
    segment,
    step,
    trace,
    window,
)
from tests.analysis.test_lifetimes import A, C, R, histories

CATEGORIES = ("parameter", "buffer", "optimizer_state", "gradient", "input")


def history_of(rank: RankTrace, device: str = "cpu"):  # type: ignore[no-untyped-def]
    return build_history(rank, device, owns_marks=False)


@settings(deadline=None)
@given(
    histories(),
    st.lists(st.tuples(st.integers(1, 6), st.integers(0, 45), st.sampled_from(CATEGORIES))),
    st.lists(st.tuples(st.integers(1, 6), st.integers(0, 45))),
)
def test_categories_and_decisions_add_up_and_peak_is_never_passed(
    history: tuple[dict[int, int], list[Event]], owned: list[tuple[int, int, str]], kept: list[tuple[int, int]]
) -> None:
    initial, events = history
    rank = rank_trace(
        events=event_rows(events, device="cuda:0"),
        windows=[window(0, len(events))],
        initial_blocks=[initial_block(address, size, device="cuda:0") for address, size in initial.items()],
        owners=[owner(10 * at, address, 1, category, device="cuda:0") for address, at, category in owned],
        saved=[saved(10 * at, address, 1, device="cuda:0") for address, at in kept],
    )
    found = history_of(rank, "cuda:0")
    peak = peak_between(found, 0, found.last_moment)
    for moment in range(len(found.moments)):
        state = state_at(found, moment)
        assert sum(state.by_category.values()) == state.requested_bytes
        assert sum(state.by_decision.values()) == state.requested_bytes
        assert min(state.by_category.values()) >= 0
        assert (state.requested_bytes or 0) <= (peak.requested_bytes or 0)
        assert "unknown" in state.by_category


def test_known_owners_are_exact_and_the_rest_is_unknown() -> None:
    rank = rank_trace(
        events=event_rows([(A, 1, 100), (A, 2, 30), (A, 3, 7), (A, 4, 1)]),
        windows=[window(0, 4, initial=0)],
        owners=[owner(40, 1, 100, "parameter"), owner(40, 2, 30, "gradient"), owner(40, 2, 30, "gradient")],
        saved=[saved(40, 1, 100), saved(40, 3, 7)],
    )
    state = state_at(history_of(rank), 4)
    assert state.by_category == {"parameter": 100, "gradient": 30, "activation": 7, "unknown": 1}
    assert state.by_decision == {"owner": 130, "hook": 7, "unknown": 1}


def test_owner_means_the_allocation_that_was_live_at_its_time() -> None:
    rank = rank_trace(
        events=event_rows([(A, 1, 10), (C, 1, 10), (A, 1, 20)]),
        windows=[window(0, 3, initial=0)],
        owners=[owner(15, 1, 10, "input"), owner(25, 1, 10, "parameter")],
    )
    found = history_of(rank)
    assert state_at(found, 1).by_category == {"input": 10, "unknown": 0}
    assert state_at(found, 3).by_category == {"unknown": 20}
    assert found.attribution.num_unmatched_storages == 1


def test_bytes_live_before_the_window_that_no_block_tells_of_are_unknown() -> None:
    rank = rank_trace(
        events=event_rows([(A, 1, 10), (C, 2, 5)]),
        windows=[window(0, 2, initial=100)],
        initial_blocks=[initial_block(3, 40)],
    )
    found = history_of(rank)
    # Of 100 bytes, block 3 tells of 40 and the free of block 2 of 5; 55 stay unseen.
    assert found.levels.base.tolist() == [55, 55, 55]
    assert found.levels.requested.tolist() == [100, 110, 105]


def test_gap_rebases_the_level() -> None:
    rank = rank_trace(
        events=event_rows([(A, 1, 10), (A, 2, 5)]),
        windows=[window(0, 1, initial=0), window(1, 1, initial=300)],
        initial_blocks=[initial_block(1, 10, window=1)],
    )
    assert history_of(rank).levels.requested.tolist() == [0, 10, 300, 305]


def test_pending_blocks_are_in_neither_requested_nor_allocated() -> None:
    rank = rank_trace(events=event_rows([(A, 1, 10), (R, 1, 10), (C, 1, 10)], device="cuda:0"), source="snapshot")
    levels = history_of(rank, "cuda:0").levels
    assert levels.requested.tolist() == [0, 10, 0, 0]
    assert levels.pending is not None
    assert levels.pending.tolist() == [0, 0, 10, 0]
    assert levels.allocated is None


def test_reserved_is_undone_from_the_final_segments() -> None:
    events = [("segment_alloc", 100, 20), (A, 100, 10), ("segment_free", 500, 7), ("segment_map", 300, 3)]
    rank = rank_trace(events=event_rows(events, device="cuda:0"), segments=[segment(100, 40, 10)], source="snapshot")
    levels = history_of(rank, "cuda:0").levels
    assert levels.reserved is not None
    # It ends at 40, so before it mapped 3, freed 7 and took 20 it was 24.
    assert levels.reserved.tolist() == [24, 44, 44, 37, 40]


def test_reserved_before_a_gap_is_fixed_at_the_end_of_a_step() -> None:
    events = [("segment_alloc", 100, 20), (A, 100, 10), ("segment_alloc", 300, 7), (A, 300, 3)]
    rank = rank_trace(
        events=event_rows(events, device="cuda:0"),
        windows=[window(0, 2), window(2, 2)],
        steps=[step(1, 0, 20, reserved_bytes=50), step(7, 25, 40)],
        segments=[segment(100, 90, 13)],
    )
    levels = build_history(rank, "cuda:0", owns_marks=True).levels
    assert levels.reserved is not None
    assert levels.reserved.tolist() == [30, 50, 50, 83, 90, 90]
    # Without the mark nobody knows what was reserved before the gap.
    assert history_of(rank, "cuda:0").levels.reserved is None


def test_profile_gives_allocated_from_its_own_totals() -> None:
    rows = event_rows([(A, 1, 512), (C, 2, 1024), (A, 3, 512)], device="cuda:0")
    for row, total in zip(rows, (5120, 4096, 4608), strict=True):
        row["total_bytes"] = total
    levels = history_of(rank_trace(events=rows, source="kineto"), "cuda:0").levels
    assert levels.allocated is not None
    assert levels.allocated.tolist() == [4608, 5120, 4096, 4608]
    assert levels.requested.tolist() == levels.allocated.tolist()


def test_profile_without_addresses_or_totals_never_falls_below_zero() -> None:
    rows = event_rows([(C, None, 50), (A, None, 20), (C, None, 20)], device="cuda:0")
    levels = history_of(rank_trace(events=rows, source="kineto"), "cuda:0").levels
    assert levels.requested.tolist() == [50, 0, 20, 0]
    assert levels.allocated is None


@settings(deadline=None, max_examples=20)
@given(st.integers(1, 40_000), st.integers(0, 2**32 - 1))
def test_thinned_timeline_keeps_every_extreme(num_events: int, seed: int) -> None:
    sizes = np.random.default_rng(seed).integers(1, 1000, num_events)
    events = [(A if at % 2 == 0 else C, 1, int(sizes[at // 2 * 2])) for at in range(num_events)]
    found = history_of(rank_trace(events=event_rows(events), windows=[window(0, num_events, initial=0)]))
    peak = peak_between(found, 0, found.last_moment)
    moment = int(found.levels.requested.argmax())
    line = build_timeline(found.moments, found.levels, [moment])
    assert len(line.event) <= MAX_POINTS + 10
    assert int(line.requested_bytes.max()) == peak.requested_bytes
    assert line.event[0] == -1
    assert line.event[-1] == num_events - 1
    assert np.all(np.diff(line.event) > 0)
    assert np.array_equal(sum(line.by_category.values()), line.requested_bytes)


def test_unseen_bytes_of_other_threads_are_noted() -> None:
    rows = event_rows([(A, 1, 10), (A, 2, 10), (A, 3, 10)])
    for row, total in zip(rows, (10, 1020, 1030), strict=True):  # 1000 bytes between the first two
        row["total_bytes"] = total
    report = analyze(trace(rank_trace(events=rows, windows=[window(0, 3, initial=0)])))
    note = next(note for note in report.ranks[0].warnings if note.slug == "unseen-bytes")
    assert "1000 B" in note.message
