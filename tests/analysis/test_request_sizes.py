"""Requests of a category made larger, smaller or left out."""

from __future__ import annotations

import pytest

from memtrace.allocator.whatif import read_recording
from memtrace.analysis.what_if.request_sizes import Edit, edited_sizes
from memtrace.errors import MemtraceError
from memtrace.store.trace import RankTrace
from tests.builders import START_US, rank_trace


def trace() -> RankTrace:
    """A parameter of 1000 bytes, and 600 bytes of which nothing is known, at an address that was the input's."""
    events = [
        {"action": "alloc", "device": "cpu", "address": 64, "size_bytes": 1000},
        {"action": "alloc", "device": "cpu", "address": 4096, "size_bytes": 500},
        {"action": "free_completed", "device": "cpu", "address": 4096, "size_bytes": 500},
        {"action": "alloc", "device": "cpu", "address": 4096, "size_bytes": 600},
    ]
    owners = [
        {"time_ns": 1000 * (START_US + 1), "address": 64, "size_bytes": 1000, "category": "parameter"},
        {"time_ns": 1000 * (START_US + 1), "address": 4096, "size_bytes": 500, "category": "input"},
    ]
    return rank_trace(events=events, owners=[{**one, "device": "cpu", "name": "x"} for one in owners])


@pytest.mark.parametrize(
    ("edits", "sizes"),
    [
        ([Edit.parse("parameter=0.5")], [500, 500, 600]),
        ([Edit.parse("input=3", divide=True)], [1000, 167, 600]),
        ([Edit(category="unknown", factor=0)], [1000, 500, 0]),
        ([Edit.parse("parameter=2"), Edit.parse("input=0.001")], [2000, 1, 600]),
    ],
)
def test_only_requests_of_the_category_change(edits: list[Edit], sizes: list[int]) -> None:
    rank = trace()
    recording = read_recording(rank, "cpu", as_cuda=True)
    assert edited_sizes(rank, "cpu", recording.requests, edits).tolist() == sizes


def test_a_category_without_allocations_is_refused() -> None:
    rank = trace()
    requests = read_recording(rank, "cpu", as_cuda=True).requests
    with pytest.raises(MemtraceError, match="gradient"):
        edited_sizes(rank, "cpu", requests, [Edit.parse("gradient=8", divide=True)])
