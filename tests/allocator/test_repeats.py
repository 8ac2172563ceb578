"""Histories that repeat themselves: what is left out of the replay comes out as if it had been replayed."""

from __future__ import annotations

from random import Random

import numpy as np
import pytest

from memtrace.allocator import repeats
from memtrace.allocator import replay as replaying
from memtrace.allocator.history import read_history
from memtrace.allocator.replay import Replayer, prepare, replay_device, state_at
from memtrace.allocator.results import Replay
from memtrace.allocator.settings import parse_settings
from memtrace.store.snapshots.torch_snapshot import read_snapshot
from memtrace.store.trace import RankTrace
from tests.allocator.simulated import Recorder

MIB = 1 << 20
CONFIGURATIONS = ("", "expandable_segments:True", "max_split_size_mb:32", "roundup_power2_divisions:4")


def step(recorder: Recorder, seed: int) -> None:
    """Take and give back some blocks, always the same of one seed; some frees wait for a stream."""
    random = Random(seed)
    live: list[int] = []
    for _ in range(60):
        if random.random() < 0.6 or not live:
            address = recorder.malloc(
                random.choice([700, 70_000, 3 * MIB, 9 * MIB, 25 * MIB]), random.choice([0, 0, 3])
            )
            assert address is not None
            live.append(address)
        else:
            recorder.free(live.pop(random.randrange(len(live))))
    for address in live:
        recorder.request_free(address)
    for address in live:
        recorder.complete(address)


def training(conf: str, seeds: list[int], *, late: bool = False, leak: bool = False) -> RankTrace:
    """Return the recording of a program whose steps are those of the seeds; with a leak each step keeps a block."""
    recorder = Recorder(parse_settings(conf))
    for _ in range(50):
        recorder.malloc(5 * MIB)
    if late:
        step(recorder, 99)
        recorder.forget()
    for seed in seeds:
        step(recorder, seed)
        if leak:
            recorder.malloc(1000)
    return read_snapshot(recorder.snapshot(), where="training")


def left_out(rank: RankTrace) -> int:
    """Return how many events were not replayed."""
    prepared = prepare(rank, "cuda:0")
    assert isinstance(prepared, replaying.Prepared)
    replayer = Replayer(prepared)
    replayer.run()
    return sum(stop - start for start, stop, _ in replayer._repeated)


def same(one: Replay, other: Replay) -> bool:
    arrays = ("block_bytes", "allocated_bytes", "active_bytes", "reserved_bytes", "unsure_bytes")
    return (one.fidelity, one.start, one.end) == (other.fidelity, other.start, other.end) and all(
        np.array_equal(getattr(one, name), getattr(other, name)) for name in arrays
    )


@pytest.fixture(autouse=True)
def _short_histories(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(repeats, "_LEAST_EVENTS", 500)
    monkeypatch.setattr(repeats, "_ALIKE", 64)


@pytest.mark.parametrize("conf", CONFIGURATIONS)
@pytest.mark.parametrize("seeds", [[1] * 40, [1, 2] * 20, [5, *[1] * 30, 2, 3, *[1] * 5], [1] * 20 + [2] * 20])
@pytest.mark.parametrize("late", [False, True])
def test_what_repeats_comes_out_as_if_it_were_replayed(
    monkeypatch: pytest.MonkeyPatch, conf: str, seeds: list[int], late: bool
) -> None:
    rank = training(conf, seeds, late=late)
    quick = replay_device(rank, "cuda:0")
    assert quick.fidelity.is_exact, str(quick.fidelity.first_divergence)
    assert left_out(rank) > len(quick.rows) // 4
    row = len(rank.table("events")) * 2 // 3
    state = state_at(rank, "cuda:0", row)
    monkeypatch.setattr(replaying, "find_repeat", lambda _: None)
    assert left_out(rank) == 0
    assert same(quick, replay_device(rank, "cuda:0"))
    assert state == state_at(rank, "cuda:0", row)


@pytest.mark.parametrize("conf", CONFIGURATIONS)
def test_a_program_that_never_settles_is_replayed_whole(conf: str) -> None:
    rank = training(conf, [1] * 40, leak=True)
    assert replay_device(rank, "cuda:0").fidelity.is_exact
    # Its steps differ by one address, so that no long stretch repeats.
    assert left_out(rank) == 0


def test_a_mismatch_that_repeats_is_counted_each_time() -> None:
    rank = training("", [1] * 40)
    rank.table("events")["stream"][:] = 0
    prepared = prepare(rank, "cuda:0")
    assert isinstance(prepared, replaying.Prepared)
    replayer = Replayer(prepared)
    replayer.run()
    assert len(replayer.wrong) > 40
    assert not replayer._repeated


def test_a_period_is_told_from_what_only_begins_alike() -> None:
    history = read_history(training("", [1, 2, 1, 3] * 12), "cuda:0")
    found = repeats.find_repeat(history)
    assert found is not None
    columns = (history.action, history.address, history.size, history.stream)
    for column in columns:
        assert np.array_equal(
            column[found.start : found.stop], column[found.start - found.period : found.stop - found.period]
        )
