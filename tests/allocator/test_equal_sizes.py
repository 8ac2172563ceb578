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


def test_a_segment_that_was_made_later_and_is_gone_says_nothing_of_the_pool_below_it(tmp_path: Path) -> None:
    events = [event("segment_alloc", LOW, 20 * MIB), event("alloc", LOW, SIZE)]
    events += [event("segment_alloc", HIGH, 20 * MIB), event("segment_free", HIGH, 20 * MIB)]
    pools = read_history(recorded(tmp_path, events, [segment(LOW, (1, 0), SIZE)]), "cuda:0").pool_ids
    assert pools is not None
    assert [one is not None for one in pools] == [True, True, False, False]


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


def many(count: int) -> list[int]:
    """Addresses of segments that were there before, the oldest of which is the highest."""
    return [HIGH + 20 * MIB * number for number in range(count)]


def test_an_alloc_tells_that_its_segment_is_older_than_all_that_would_have_done(tmp_path: Path) -> None:
    addresses, events = many(16), []
    for _ in range(3):
        events += [event("alloc", address, SIZE) for address in reversed(addresses)]
        for address in addresses:
            events += [event(action, address, SIZE) for action in ("free_requested", "free_completed")]
    fidelity = replay_device(recorded(tmp_path, events, [segment(one) for one in addresses]), "cuda:0").fidelity
    assert fidelity.is_exact
    # Each but the last of the first round tells of its segment; nothing of the rounds after it is left to tell.
    assert fidelity.num_inferred_blocks == len(addresses) - 1
    assert fidelity.allocations_matched == fidelity.allocations - fidelity.num_inferred_blocks


LENT = 12 * MIB
"""A block that is in use before the history, with 20 MiB behind it that are free."""


def beside_a_lent_block(tmp_path: Path, *, behind: int | None) -> RankTrace:
    """A recording in which 20 MiB behind a block of unknown size are passed over for a segment of 20 MiB.

    `behind` says how many bytes behind the block's request an alloc starts later, if one does. Then it is freed.
    """
    events = [event("alloc", HIGH, SIZE)]
    front: dict[str, Any] = {"address": LOW, "size": LENT, "requested_size": 0, "state": "inactive", "frames": []}
    rest = {**front, "address": LOW + LENT, "size": 20 * MIB}
    if behind is not None:
        address, size = LOW + LENT + behind, SIZE - behind
        events += [event("alloc", address, size)]
        front["size"] = LENT + behind
        rest |= {"address": address, "size": 20 * MIB - behind, "requested_size": size, "state": "active_allocated"}
    else:
        front["size"] = LENT + 20 * MIB
    events += [event(action, LOW, LENT) for action in ("free_requested", "free_completed")]
    used = 0 if behind is None else rest["size"]
    whole = {**segment(LOW), "total_size": LENT + 20 * MIB, "allocated_size": used, "active_size": used}
    whole["blocks"] = [front] if behind is None else [front, rest]
    return recorded(tmp_path, events, [whole, segment(HIGH, used=SIZE)])


def test_free_memory_is_not_short_where_an_alloc_later_has_all_of_it(tmp_path: Path) -> None:
    replay = replay_device(beside_a_lent_block(tmp_path, behind=0), "cuda:0")
    assert replay.fidelity.is_exact, str(replay.fidelity.first_divergence)
    # The first alloc told that the higher segment is the older one; the second one was predicted.
    assert (replay.fidelity.allocations_matched, replay.fidelity.num_inferred_blocks) == (1, 1)
    assert replay.start is not None
    assert replay.start.allocated_bytes == LENT


def test_free_memory_is_as_short_as_a_later_alloc_tells(tmp_path: Path) -> None:
    short = MIB - 512
    replay = replay_device(beside_a_lent_block(tmp_path, behind=short), "cuda:0")
    assert replay.fidelity.is_exact, str(replay.fidelity.first_divergence)
    # The second alloc told the size of the block, and so the first one was predicted.
    assert (replay.fidelity.allocations_matched, replay.fidelity.num_inferred_blocks) == (1, 1)
    assert replay.start is not None
    assert replay.start.allocated_bytes == LENT + short


def test_how_short_free_memory_was_that_nothing_was_put_into_is_not_known(tmp_path: Path) -> None:
    replay = replay_device(beside_a_lent_block(tmp_path, behind=None), "cuda:0")
    assert replay.fidelity.is_exact, str(replay.fidelity.first_divergence)
    assert replay.num_unsure_blocks == 1
    assert replay.start is not None
    # The remainder that explains the first alloc, and up to 1 MiB that nothing tells of.
    least = replay.start.allocated_bytes
    assert least == LENT + (20 * MIB - SIZE) + 512
    assert least + replay.unsure_start_bytes == LENT + MIB
