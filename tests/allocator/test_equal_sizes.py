"""Which of free blocks of one size is taken: it changed with torch 2.12 and 2.13, as torch showed without a GPU."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from memtrace.allocator.blocks import Device
from memtrace.allocator.history import read_history
from memtrace.allocator.model import Allocator
from memtrace.allocator.replay import replay_device
from memtrace.allocator.settings import (
    LOWEST_ADDRESS,
    OLDEST_BLOCK,
    OLDEST_SEGMENT,
    Settings,
    settings_of_snapshot,
)
from memtrace.schema.names import DEFAULT_POOL
from memtrace.store.reading.read import read_trace
from memtrace.store.trace import RankTrace

MIB = 1024**2
LOW, HIGH = 0x100000000, 0x200000000
SIZE = 19 * MIB + MIB // 2
"""Of a segment of 20 MiB, too much of it to split off the rest."""


class GivenAddresses(Device):
    """A device whose segments lie where a test says."""

    def __init__(self, *addresses: int) -> None:
        super().__init__(None)
        self._addresses: Iterator[int] = iter(addresses)

    def malloc(self, size: int) -> int | None:
        return next(self._addresses)


@pytest.mark.parametrize(("rule", "taken"), [(LOWEST_ADDRESS, LOW), (OLDEST_BLOCK, HIGH), (OLDEST_SEGMENT, HIGH)])
def test_of_two_whole_segments(rule: str, taken: int) -> None:
    allocator = Allocator(Settings(equal_sizes=rule), GivenAddresses(HIGH, LOW))
    blocks = [allocator.malloc(SIZE), allocator.malloc(SIZE)]
    for block in blocks:
        assert block is not None
        allocator.free(block.address)
    again = allocator.malloc(SIZE)
    assert again is not None
    assert again.address == taken


@pytest.mark.parametrize(("rule", "taken"), [(LOWEST_ADDRESS, LOW), (OLDEST_BLOCK, HIGH), (OLDEST_SEGMENT, LOW)])
def test_of_two_segments_one_of_which_was_split_since(rule: str, taken: int) -> None:
    allocator = Allocator(Settings(equal_sizes=rule), GivenAddresses(LOW, HIGH))
    first, second = allocator.malloc(SIZE), allocator.malloc(SIZE)
    assert first is not None
    assert second is not None
    allocator.free(first.address)
    front = allocator.malloc(9 * MIB)
    assert front is not None
    assert front.address == LOW
    allocator.free(front.address)
    allocator.free(second.address)
    again = allocator.malloc(SIZE)
    assert again is not None
    assert again.address == taken


@pytest.mark.parametrize(
    ("facts", "rule"),
    [
        ({}, LOWEST_ADDRESS),
        ({"events_name_pool": False, "max_round_threshold": -1}, LOWEST_ADDRESS),
        ({"events_name_pool": True}, OLDEST_BLOCK),
        ({"events_name_pool": True, "max_round_threshold": -1}, OLDEST_SEGMENT),
    ],
)
def test_the_form_of_a_snapshot_tells_the_rule(facts: dict[str, Any], rule: str) -> None:
    assert settings_of_snapshot(facts).equal_sizes == rule


def event(action: str, address: int, size: int) -> dict[str, Any]:
    return {"action": action, "addr": address, "size": size, "stream": 0, "pool_id": (0, 0), "frames": []}


def recorded(folder: Path, events: list[dict[str, Any]], segments: list[dict[str, Any]]) -> RankTrace:
    facts = {"max_round_threshold": -1}
    snapshot = {"segments": segments, "device_traces": [events], "allocator_settings": facts}
    path = folder / "snapshot.pickle"
    path.write_bytes(pickle.dumps(snapshot))
    return read_trace(path).ranks[0]


def segment(address: int, pool: tuple[int, int] = (0, 0), used: int | None = None) -> dict[str, Any]:
    """A segment of 20 MiB that is free, or one block whose request is given."""
    state = "inactive" if used is None else "active_allocated"
    block = {"address": address, "size": 20 * MIB, "requested_size": used or 0, "state": state, "frames": []}
    return {
        "device": 0,
        "address": address,
        "total_size": 20 * MIB,
        "allocated_size": 0 if used is None else 20 * MIB,
        "active_size": 0 if used is None else 20 * MIB,
        "requested_size": used or 0,
        "frames": [],
        "stream": 0,
        "segment_type": "large",
        "segment_pool_id": pool,
        "is_expandable": False,
        "blocks": [block],
    }


def test_an_address_is_of_a_private_pool_only_since_its_segment_was_made(tmp_path: Path) -> None:
    before = [event("segment_alloc", LOW, 20 * MIB), event("alloc", LOW, SIZE)]
    before += [event(action, LOW, SIZE) for action in ("free_requested", "free_completed")]
    before += [event("segment_free", LOW, 20 * MIB)]
    after = [event("segment_alloc", LOW, 20 * MIB), event("alloc", LOW, SIZE)]
    rank = recorded(tmp_path, before + after, [segment(LOW, (1, 0), SIZE)])
    pools = read_history(rank, "cuda:0").pool_ids
    assert pools is not None
    assert pools[: len(before)] == [None] * len(before)
    assert [one not in (None, DEFAULT_POOL) for one in pools[len(before) :]] == [True, True]
    assert replay_device(rank, "cuda:0").fidelity.is_exact


def test_which_segment_is_older_is_inferred_where_a_history_starts_late(tmp_path: Path) -> None:
    """Both segments were there before; the program takes the one of the higher address, again and again."""
    events = []
    for _ in range(3):
        events += [event(action, HIGH, SIZE) for action in ("alloc", "free_requested", "free_completed")]
    rank = recorded(tmp_path, events, [segment(LOW), segment(HIGH)])
    fidelity = replay_device(rank, "cuda:0").fidelity
    assert fidelity.is_exact
    assert (fidelity.allocations, fidelity.allocations_matched, fidelity.num_inferred_blocks) == (3, 2, 1)


def test_a_contradiction_about_ages_is_no_inference(tmp_path: Path) -> None:
    events = []
    for address in (HIGH, LOW, HIGH):
        events += [event(action, address, SIZE) for action in ("alloc", "free_requested", "free_completed")]
    rank = recorded(tmp_path, events, [segment(LOW), segment(HIGH)])
    assert not replay_device(rank, "cuda:0").fidelity.is_exact
