"""Replaying recordings: every public one at its recorded addresses, and simulated ones with what those lack."""

from __future__ import annotations

import copy
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest

from memtrace.allocator.blocks import PENDING
from memtrace.allocator.replay import replay_device, state_at
from memtrace.allocator.settings import parse_settings
from memtrace.errors import MemtraceError
from memtrace.store.reading.read import read_trace
from memtrace.store.snapshots.torch_snapshot import read_snapshot
from memtrace.store.trace import RankTrace
from tests.allocator.simulated import Recorder
from tests.builders import rank_trace

MIB = 1 << 20

# Events, allocs, segment events, blocks whose size had to be inferred.
EXACT = {
    "attention-forward-backward-from-process-start": (97, 36, 9, 0),
    "gpt-forward-warm-nets-to-zero": (2043, 681, 0, 0),
    "gpt-forwards-late-history": (9670, 3221, 9, 0),
    "gpt-inference-from-process-start": (2304, 785, 31, 0),
    "gpt-medium-512-train-warm-step-unsplit-live-blocks": (22332, 7591, 1, 3),
    "gpt-medium-inference-late-history": (3840, 1280, 0, 0),
    "gpt-medium-train-warm-step-late-history": (19136, 6526, 0, 0),
    "gpt-train-3-steps-from-process-start-batch100": (11300, 3853, 65, 0),
    "gpt-train-3-steps-from-process-start-batch200": (11480, 3907, 83, 0),
    "gpt-train-windows-frameless-backward": (5163, 1721, 0, 0),
}
WITHOUT_HISTORY = (
    "kv-cache-inference-one-stray-event",
    "segments-only-at-oom-torch-2.1",
    "segments-only-fragmented",
    "segments-only-one-stray-event",
    "segments-only-three-pools-pending-free",
)


def real(shared_data: Path, name: str) -> RankTrace:
    return read_trace(shared_data / "snapshots" / f"{name}.pickle").ranks[0]


def read(snapshot: dict[str, Any]) -> RankTrace:
    return read_snapshot(snapshot, where="simulated")


@pytest.mark.parametrize("name", EXACT)
def test_every_recorded_address_is_reproduced(shared_data: Path, name: str) -> None:
    rank = real(shared_data, name)
    replay = replay_device(rank, "cuda:0")
    fidelity = replay.fidelity
    inferred = fidelity.num_inferred_blocks
    found = (len(replay.rows), fidelity.allocations, fidelity.segment_events, inferred)
    assert found == EXACT[name]
    # An alloc that told the size of a block does not count as matched; all others are.
    assert fidelity.allocations_matched == fidelity.allocations - inferred
    assert fidelity.segment_events_matched == fidelity.segment_events
    assert fidelity.is_exact, fidelity.first_divergence
    check_end(rank, replay)


@pytest.mark.parametrize("name", EXACT)
def test_the_allocated_level_is_exact_at_the_peak(shared_data: Path, name: str) -> None:
    replay = replay_device(real(shared_data, name), "cuda:0")
    assert replay.unsure_bytes[replay.allocated_bytes.argmax()] == 0
    # One block in all recordings leaves no trace of its size before it is freed.
    assert replay.num_unsure_blocks == (1 if name == "gpt-train-windows-frameless-backward" else 0)
    assert 0 <= replay.unsure_start_bytes < MIB


def check_end(rank: RankTrace, replay: Any) -> None:
    """The replay ends in the state that torch wrote down: segment by segment, block by block."""
    segments, blocks = rank.table("segments"), rank.table("blocks")
    assert replay.end.reserved_bytes == replay.reserved_bytes[-1] == segments["total_bytes"].sum()
    assert replay.end.allocated_bytes == replay.allocated_bytes[-1] == segments["allocated_bytes"].sum()
    assert replay.end.active_bytes == replay.active_bytes[-1] == segments["active_bytes"].sum()
    replayed = [
        (block.address, block.size_bytes, block.state) for segment in replay.end.segments for block in segment.blocks
    ]
    recorded = [
        (int(address), int(size), rank.text(state))
        for address, size, state in zip(blocks["address"], blocks["size_bytes"], blocks["state"], strict=True)
    ]
    assert sorted(replayed) == sorted(recorded)


@pytest.mark.parametrize("name", EXACT)
def test_what_the_first_half_tells_reproduces_the_second(shared_data: Path, name: str) -> None:
    fidelity = replay_device(real(shared_data, name), "cuda:0", infer_share=0.5).fidelity
    assert fidelity.allocations_matched == fidelity.allocations > 0
    assert fidelity.segment_events_matched == fidelity.segment_events


def test_an_inconsistent_file_is_not_replayed(shared_data: Path) -> None:
    replay = replay_device(real(shared_data, "anonymised-physically-inconsistent"), "cuda:0")
    assert not replay.fidelity.replayable
    assert "exceed the segments" in (replay.fidelity.reason or "")
    assert replay.end is None
    assert len(replay.allocated_bytes) == 0


@pytest.mark.parametrize("name", WITHOUT_HISTORY)
def test_a_file_without_a_history_is_not_replayed(shared_data: Path, name: str) -> None:
    fidelity = replay_device(real(shared_data, name), "cuda:0").fidelity
    assert (fidelity.replayable, fidelity.reason) == (False, "There is no history of allocations.")


def random_recording(conf: str, seed: int, *, capacity: int | None = None, warm: bool = False) -> Recorder:
    """Return the recording of a random program; a warm one starts when memory is in use already."""
    random, recorder = Random(seed), Recorder(parse_settings(conf), capacity)
    live: list[int] = []
    waiting: list[int] = []
    sizes = [512, 3000, 70_000, MIB, MIB + 512, 3 * MIB, 5 * MIB, 9 * MIB, 12 * MIB, 19 * MIB, 25 * MIB, 47 * MIB]
    for at in range(900):
        if warm and at == 400:
            recorder.forget()
        if random.random() < (0.7 if at % 200 < 100 else 0.35):
            size = random.choice(sizes) + 512 * random.randrange(900) * (random.random() < 0.5)
            address = recorder.malloc(size, random.choice([0, 0, 0, 3]))
            if address is not None:
                live.append(address)
            pending = {at for at, block in recorder.allocator.live.items() if block.state == PENDING}
            waiting = [one for one in waiting if one in pending]
        elif waiting and random.random() < 0.3:
            recorder.complete(waiting.pop(random.randrange(len(waiting))))
        elif random.random() < 0.02:
            recorder.empty_cache()
            waiting = []
        elif live:
            address = live.pop(random.randrange(len(live)))
            recorder.request_free(address)
            if random.random() < 0.1:
                waiting.append(address)
            else:
                recorder.complete(address)
    return recorder


CONFIGURATIONS = (
    "",
    "expandable_segments:True",
    "max_split_size_mb:32",
    "roundup_power2_divisions:[1:4,>:8]",
    "large_segment_size_mb:12,expandable_segments:True",
)


@pytest.mark.parametrize("conf", CONFIGURATIONS)
@pytest.mark.parametrize("seed", range(4))
def test_simulated_recordings_from_process_start_are_reproduced(conf: str, seed: int) -> None:
    rank = read(random_recording(conf, seed).snapshot())
    replay = replay_device(rank, "cuda:0")
    assert replay.fidelity.is_exact, str(replay.fidelity)
    assert replay.fidelity.num_inferred_blocks == 0
    assert replay.fidelity.allocations_matched == replay.fidelity.allocations > 300
    assert replay.fidelity.segment_events_matched == replay.fidelity.segment_events > 20
    check_end(rank, replay)


@pytest.mark.parametrize("conf", CONFIGURATIONS)
@pytest.mark.parametrize("seed", range(4))
def test_simulated_recordings_that_start_late_are_reproduced(conf: str, seed: int) -> None:
    rank = read(random_recording(conf, seed, warm=True).snapshot())
    replay = replay_device(rank, "cuda:0")
    fidelity = replay.fidelity
    assert fidelity.replayable, fidelity.reason
    assert fidelity.is_exact, str(fidelity.first_divergence)
    check_end(rank, replay)


LIMITED = (
    "",
    "expandable_segments:True",
    "max_split_size_mb:32",
    "per_process_memory_fraction:0.9,garbage_collection_threshold:0.6",
)


@pytest.mark.parametrize("conf", LIMITED)
@pytest.mark.parametrize("seed", range(6))
def test_retries_and_failures_at_a_capacity_are_reproduced(conf: str, seed: int) -> None:
    recorder = random_recording(conf, seed, capacity=400 * MIB)
    assert recorder.allocator.num_alloc_retries > 0
    replay = replay_device(read(recorder.snapshot()), "cuda:0")
    assert replay.fidelity.is_exact, str(replay.fidelity.first_divergence)


def test_levels_are_those_of_whole_blocks() -> None:
    recorder = Recorder(parse_settings(""))
    first = recorder.malloc(19 * MIB + 1)
    small = recorder.malloc(10)
    assert first is not None
    assert small is not None
    recorder.request_free(first)
    recorder.complete(first)
    replay = replay_device(read(recorder.snapshot()), "cuda:0")
    # segment_alloc, alloc, segment_alloc, alloc, free_requested, free_completed; 20 MiB for 19 and a byte, unsplit.
    assert replay.reserved_bytes.tolist() == [20 * MIB] * 2 + [22 * MIB] * 4
    assert replay.allocated_bytes.tolist() == [0, 20 * MIB, 20 * MIB, 20 * MIB + 512, 512, 512]
    assert replay.active_bytes.tolist() == [0, 20 * MIB, 20 * MIB, 20 * MIB + 512, 20 * MIB + 512, 512]
    assert np.all(replay.allocated_bytes <= replay.active_bytes)


def test_one_divergence_does_not_spoil_the_rest() -> None:
    recorder = random_recording("", 1)
    snapshot = recorder.snapshot()
    # The program emptied the cache, and the record lost it: an edited file, but a consistent one.
    events = snapshot["device_traces"][0]
    allocs = [at for at, one in enumerate(events) if one["action"] == "alloc"]
    replay = replay_device(read(snapshot), "cuda:0")
    assert replay.fidelity.is_exact
    del events[: allocs[20]]
    late = replay_device(read(snapshot), "cuda:0").fidelity
    assert late.replayable
    assert late.allocations_matched > 0.99 * late.allocations


def test_the_state_at_any_moment() -> None:
    recorder = Recorder(parse_settings(""))
    first = recorder.malloc(4 * MIB)
    recorder.malloc(6 * MIB)
    assert first is not None
    recorder.free(first)
    rank = read(recorder.snapshot())
    before = state_at(rank, "cuda:0", 2)
    after = state_at(rank, "cuda:0", 4)
    assert before is not None
    assert after is not None
    assert [block.size_bytes // MIB for block in before.segments[0].blocks] == [4, 6, 10]
    assert (before.largest_free_block_bytes, before.inactive_split_bytes) == (10 * MIB, 10 * MIB)
    assert (after.largest_free_block_bytes, after.num_free_blocks) == (10 * MIB, 2)


def test_the_cpu_has_no_allocator_to_replay() -> None:
    rank = rank_trace(events=[{"action": "alloc", "device": "cpu", "address": 64, "size_bytes": 8}])
    assert replay_device(rank, "cpu").fidelity.reason == "The CPU has no caching allocator."


def test_lost_events_cannot_be_replayed() -> None:
    rank = rank_trace(
        events=[{"action": "alloc", "address": 512, "size_bytes": 8}],
        windows=[{"num_events": 1, "num_lost": 3, "reason": "start"}],
        segments=[{"device": "cuda:0", "address": 512, "total_bytes": 2 * MIB, "segment_type": "small"}],
    )
    assert "lost" in (replay_device(rank, "cuda:0").fidelity.reason or "")


def test_pools_of_graphs_are_kept_apart() -> None:
    recorder = Recorder(parse_settings(""))
    for _ in range(3):
        address = recorder.malloc(4 * MIB)
        assert address is not None
        recorder.free(address)
        private = recorder.malloc(4 * MIB, 0, "1,0")
        assert private is not None
        assert private != address
        recorder.malloc(5 * MIB, 0, "1,0")
        recorder.free(private)
    replay = replay_device(read(recorder.snapshot()), "cuda:0")
    assert replay.fidelity.is_exact, str(replay.fidelity.first_divergence)
    assert replay.fidelity.allocations_matched == 9


def test_each_device_has_its_own_allocator() -> None:
    snapshots = [random_recording("", seed).snapshot() for seed in (5, 6)]
    for segment in snapshots[1]["segments"]:
        segment["device"] = 1
    both = {
        "segments": [one for snapshot in snapshots for one in snapshot["segments"]],
        "device_traces": [snapshot["device_traces"][0] for snapshot in snapshots],
        "allocator_settings": snapshots[0]["allocator_settings"],
    }
    for device in ("cuda:0", "cuda:1"):
        fidelity = replay_device(read(both), device).fidelity
        assert fidelity.is_exact
        assert fidelity.allocations_matched > 300


def test_an_alloc_right_behind_a_block_confirms_its_size() -> None:
    recorder = Recorder(parse_settings(""))
    first = recorder.malloc(5 * MIB)
    assert first is not None
    recorder.forget()
    second = recorder.malloc(3 * MIB)
    assert second == first + 5 * MIB
    recorder.free(first)
    replay = replay_device(read(recorder.snapshot()), "cuda:0")
    assert (replay.num_unsure_blocks, replay.unsure_start_bytes) == (0, 0)


def test_an_uncertainty_ends_when_the_block_is_freed() -> None:
    recorder = Recorder(parse_settings(""))
    first = recorder.malloc(11 * MIB)
    recorder.malloc(30 * MIB)
    assert first is not None
    recorder.free(first)
    # Of 12 MiB 5 are used and 7 are free behind them; who comes later cannot see where the 5 end.
    again = recorder.malloc(5 * MIB)
    recorder.forget()
    recorder.malloc(600)
    assert again is not None
    recorder.free(again)
    replay = replay_device(read(recorder.snapshot()), "cuda:0")
    assert replay.num_unsure_blocks == 1
    assert replay.unsure_start_bytes == MIB
    # segment_alloc and alloc of 600 bytes, free_requested, free_completed.
    assert replay.unsure_bytes.tolist() == [MIB, MIB, 0, 0]


def damage(snapshot: dict[str, Any], random: Random) -> dict[str, Any]:
    """Return a snapshot with an event or a segment lost, doubled, moved or changed."""
    snapshot = copy.deepcopy(snapshot)
    events = snapshot["device_traces"][0]
    actions = ["alloc", "free_completed", "free_requested", "segment_alloc", "segment_free", "segment_map", "oom"]
    for _ in range(random.choice([1, 2, 10])):
        at = random.randrange(len(events))
        kind = random.randrange(6)
        if kind == 0:
            del events[at : at + random.choice([1, 20])]
        elif kind == 1:
            events[at]["size"] = random.choice([0, 1, 2**40, events[at]["size"] + 512])
        elif kind == 2 and "addr" in events[at]:
            events[at]["addr"] = random.choice([0, events[at]["addr"] + 512, events[0]["addr"]])
        elif kind == 3:
            events[at]["action"] = random.choice(actions)
        elif kind == 4:
            events[at], events[at - 1] = events[at - 1], events[at]
        elif snapshot["segments"]:
            snapshot["segments"].pop(random.randrange(len(snapshot["segments"])))
    return snapshot


def test_a_damaged_recording_is_refused_or_diverges_but_never_breaks() -> None:
    bases = [random_recording(conf, 1, warm=True).snapshot() for conf in CONFIGURATIONS[:3]]
    outcomes = set()
    for seed in range(90):
        try:
            rank = read(damage(bases[seed % 3], Random(seed)))
        except MemtraceError:
            continue
        fidelity = replay_device(rank, "cuda:0").fidelity
        outcomes.add((fidelity.replayable, fidelity.first_divergence is None))
        assert fidelity.allocations_matched <= fidelity.allocations
        assert fidelity.replayable == (fidelity.reason is None)
    assert {(False, True), (True, False)} <= outcomes


def test_a_profile_has_no_segments_to_replay(shared_data: Path) -> None:
    rank = read_trace(shared_data / "kineto" / "bert-inference-h100.json.gz").ranks[0]
    assert "no segments" in (replay_device(rank, "cuda:0").fidelity.reason or "")


@pytest.mark.parametrize("size", [3 * MIB, 700])
def test_the_unmapped_front_of_an_expandable_segment_is_found_where_it_is_mapped_again(size: int) -> None:
    granule = 20 * MIB if size > MIB else 2 * MIB
    recorder = Recorder(parse_settings("expandable_segments:True"))
    front, kept = recorder.malloc(granule // 2 if size < MIB else granule), recorder.malloc(size)
    assert front is not None
    assert kept is not None
    while kept < front + granule:
        kept = recorder.malloc(size)
        assert kept is not None
    for address in [one for one in recorder.allocator.live if one != kept]:
        recorder.free(address)
    recorder.empty_cache()
    recorder.forget()
    # What is mapped lies below all that is mapped already, where nothing shows that the segment reaches.
    address = recorder.malloc(granule - MIB if size > MIB else MIB)
    while address is not None and address > kept:
        address = recorder.malloc(granule - MIB if size > MIB else MIB)
    assert address == front
    replay = replay_device(read(recorder.snapshot()), "cuda:0")
    assert replay.fidelity.is_exact, str(replay.fidelity.first_divergence)
    check_end(read(recorder.snapshot()), replay)


@pytest.mark.parametrize("conf", ["expandable_segments:True", "expandable_segments:True,roundup_power2_divisions:4"])
@pytest.mark.parametrize("seed", range(4, 40))
def test_late_recordings_of_expandable_segments_that_were_flushed_are_reproduced(conf: str, seed: int) -> None:
    rank = read(random_recording(conf, seed, warm=True).snapshot())
    fidelity = replay_device(rank, "cuda:0").fidelity
    assert fidelity.is_exact, str(fidelity.first_divergence)


@pytest.mark.parametrize(("conf", "seed"), [("", 6), ("max_split_size_mb:32", 22), ("max_split_size_mb:32", 39)])
def test_a_remainder_that_was_told_to_be_at_least_so_large_is_told_more_of(conf: str, seed: int) -> None:
    fidelity = replay_device(read(random_recording(conf, seed, warm=True).snapshot()), "cuda:0").fidelity
    assert fidelity.is_exact, str(fidelity.first_divergence)
    # However many requests told of a block, one of them does not count.
    assert fidelity.allocations_matched == fidelity.allocations - fidelity.num_inferred_blocks
    assert fidelity.num_inferred_blocks > 0


@pytest.mark.parametrize("seed", [*range(4), 20, 35, 208, 357])
def test_garbage_that_is_older_than_the_history_is_collected_as_the_record_tells(seed: int) -> None:
    conf = "per_process_memory_fraction:0.9,max_split_size_mb:32,garbage_collection_threshold:0.8"
    recorder = random_recording(conf, seed, capacity=400 * MIB, warm=True)
    fidelity = replay_device(read(recorder.snapshot()), "cuda:0").fidelity
    assert fidelity.is_exact, str(fidelity.first_divergence)
