"""Stretches of time for drawing: exact where there are few, and never more than asked for."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from memtrace.analysis.results.time import TimeLane
from memtrace.analysis.time.intervals import Intervals
from memtrace.analysis.time.overlap import time_of_rank
from memtrace.analysis.time.tracks import time_tracks
from tests.analysis.small_profile import Profile

US = 1000
TIMES = st.lists(st.tuples(st.integers(0, 60), st.integers(0, 12)), max_size=12)


def lanes(profile: Profile, **options: int) -> dict[str, TimeLane]:
    tracks = time_tracks(profile.rank(), **options)
    assert tracks is not None
    return {lane.name: lane for lane in tracks.lanes}


def spans(lane: TimeLane) -> list[tuple[int, int]]:
    return list(zip((lane.start_ns // US).tolist(), (lane.end_ns // US).tolist(), strict=True))


def test_lanes_hold_what_ran_when() -> None:
    profile = Profile().gpu(0, 10).gpu(8, 20, stream=8).communication(15, 40).copy(50, 60)
    profile.add("cuda_runtime", "cudaMalloc", 41, 45).add("user_annotation", "enumerate(DataLoader)#x", 30, 35)
    found = lanes(profile)
    assert {name: spans(lane) for name, lane in found.items()} == {
        "compute": [(0, 20)],
        "communication": [(15, 40)],
        "exposed": [(20, 40)],
        "copy": [(50, 60)],
        "idle": [(40, 50)],
        "data": [(30, 35)],
        "allocator": [(41, 45)],
    }
    assert all(lane.max_closed_ns == 0 for lane in found.values())


def test_lengths_are_those_of_the_figures() -> None:
    profile = Profile().gpu(0, 10).communication(5, 30).gpu(28, 29).copy(25, 35)
    whole, found = time_of_rank(profile.rank()), lanes(profile)
    assert whole is not None
    assert found["exposed"].total_ns == whole.whole.exposed_ns
    assert found["compute"].total_ns == whole.whole.compute_ns
    assert whole.whole.idle_ns == 0
    assert "idle" not in found
    assert lanes(profile.gpu(70, 75).gpu(80, 81))["idle"].total_ns == (35 + 5) * US


def test_a_profile_without_a_gpu_has_no_tracks() -> None:
    assert time_tracks(Profile().step(1, 0, 10).rank()) is None


def test_the_shortest_gaps_are_closed_and_the_longest_of_them_is_told() -> None:
    profile = Profile().gpu(0, 10).gpu(11, 20).gpu(50, 60).gpu(63, 70).gpu(99, 100)
    compute = lanes(profile, max_stretches=3)["compute"]
    assert spans(compute) == [(0, 20), (50, 70), (99, 100)]
    assert (compute.num_stretches, compute.max_closed_ns, compute.total_ns) == (5, 3 * US, 37 * US)


def covered(intervals: Intervals) -> set[int]:
    pairs = zip(intervals.start_ns.tolist(), intervals.end_ns.tolist(), strict=True)
    return {time for start, end in pairs for time in range(start, end)}


def intervals(drawn: list[tuple[int, int]]) -> Intervals:
    starts, lengths = (np.array([one[at] for one in drawn], np.int64) for at in (0, 1))
    return Intervals.united(starts, starts + lengths)


@given(TIMES, TIMES)
def test_a_difference_holds_the_moments_of_one_that_are_not_in_the_other(one: list, other: list) -> None:  # type: ignore[type-arg]
    first, second = intervals(one), intervals(other)
    assert covered(first - second) == covered(first) - covered(second)


@given(TIMES, st.integers(1, 6))
def test_merging_keeps_every_moment_and_the_longest_gaps(drawn: list, most: int) -> None:  # type: ignore[type-arg]
    whole = intervals(drawn)
    merged = whole.merged(most)
    assert len(merged.start_ns) == min(most, len(whole.start_ns))
    assert covered(whole) <= covered(merged)
    gaps, kept = ((each.start_ns[1:] - each.end_ns[:-1]).tolist() for each in (whole, merged))
    assert sorted(kept) == sorted(gaps)[len(gaps) - len(kept) :]
