"""What-if: verdicts that can be derived by hand, and that agree with the replay of real recordings."""

from __future__ import annotations

from pathlib import Path
from random import Random

import numpy as np
import pytest

from memtrace.allocator.settings import parse_settings
from memtrace.allocator.whatif import BASELINE, Change, read_recording, what_if
from memtrace.errors import MemtraceError
from memtrace.store.reading.read import read_trace
from memtrace.store.snapshots.torch_snapshot import read_snapshot
from tests.allocator.simulated import Recorder
from tests.builders import rank_trace

MIB = 1 << 20


def recorder_of_three() -> Recorder:
    """12 MiB and 30 MiB in use, the first given back, then 40 MiB: 82 MiB are reserved, 70 MiB in use."""
    recorder = Recorder(parse_settings(""))
    first = recorder.malloc(12 * MIB)
    recorder.malloc(30 * MIB)
    assert first is not None
    recorder.free(first)
    recorder.malloc(40 * MIB)
    return recorder


def test_a_capacity_between_use_and_reserve_costs_a_retry() -> None:
    recording = read_recording(read_snapshot(recorder_of_three().snapshot(), where="simulated"), "cuda:0")
    changes = [Change(name=str(size), capacity_bytes=size * MIB) for size in (82, 81, 70, 69)]
    base, enough, retry, exact, short = what_if(recording, changes).rows
    assert (base.name, base.max_reserved_bytes, base.peak_allocated_bytes) == (BASELINE, 82 * MIB, 70 * MIB)
    assert (enough.fits, enough.num_alloc_retries, enough.max_reserved_bytes) == (True, 0, 82 * MIB)
    assert (retry.fits, retry.num_alloc_retries, retry.max_reserved_bytes) == (True, 1, 70 * MIB)
    assert (exact.fits, exact.num_alloc_retries) == (True, 1)
    assert not short.fits
    assert short.oom is not None
    assert (short.oom.request_bytes, short.oom.reserved_bytes, short.oom.num_alloc_retries) == (40 * MIB, 30 * MIB, 1)


def test_expandable_segments_reuse_what_plain_ones_cannot() -> None:
    recording = read_recording(read_snapshot(recorder_of_three().snapshot(), where="simulated"), "cuda:0")
    change = Change(name="e", settings=parse_settings("expandable_segments:True"))
    row = what_if(recording, [change]).rows[-1]
    # 12 + 30 MiB map three granules of 20 MiB; of 40 MiB behind them 18 MiB are there, so two more are mapped.
    assert row.max_reserved_bytes == 100 * MIB
    assert row.peak_allocated_bytes == 70 * MIB


def test_sizes_can_be_changed_and_requests_left_out() -> None:
    recording = read_recording(read_snapshot(recorder_of_three().snapshot(), where="simulated"), "cuda:0")
    half = Change(name="half", sizes=recording.requests.size // 2)
    gone = Change(name="gone", sizes=np.where(recording.requests.size == 30 * MIB, 0, recording.requests.size))
    _, halved, without = what_if(recording, [half, gone]).rows
    assert halved.peak_requested_bytes == 35 * MIB
    assert without.peak_allocated_bytes == 40 * MIB


def test_a_recorded_empty_cache_is_done_in_every_row() -> None:
    recorder = Recorder(parse_settings(""))
    for _ in range(3):
        address = recorder.malloc(12 * MIB)
        assert address is not None
        recorder.free(address)
        recorder.empty_cache()
    recording = read_recording(read_snapshot(recorder.snapshot(), where="simulated"), "cuda:0")
    row = what_if(recording, [Change(name="same", settings=parse_settings(""))]).rows[-1]
    assert row.num_device_mallocs == 3


def test_the_cache_can_be_emptied_at_each_step() -> None:
    events = []
    for step in range(3):
        events += [
            {"action": "alloc", "device": "cpu", "address": 4096, "size_bytes": 12 * MIB, "time_ns": 100 * step + 10},
            {"action": "free_completed", "device": "cpu", "address": 4096, "size_bytes": 12 * MIB},
        ]
        events[-1]["time_ns"] = 100 * step + 20
    steps = [{"step": n + 1, "start_ns": 100 * n, "end_ns": 100 * n + 50, "recorded": True} for n in range(3)]
    recording = read_recording(rank_trace(events=events, steps=steps), "cpu", as_cuda=True)
    base, emptied = what_if(recording, [Change(name="emptied", empties_cache=True)]).rows
    assert (base.num_device_mallocs, emptied.num_device_mallocs) == (1, 3)


def test_a_recording_of_the_cpu_becomes_one_of_a_gpu_only_when_asked() -> None:
    rank = rank_trace(events=[{"action": "alloc", "device": "cpu", "address": 64, "size_bytes": 3 * MIB}])
    with pytest.raises(MemtraceError, match="CPU"):
        read_recording(rank, "cpu")
    result = what_if(read_recording(rank, "cpu", as_cuda=True), [])
    assert [row.max_reserved_bytes for row in result.rows] == [20 * MIB]
    assert not result.fidelity.replayable


REAL = (
    "gpt-train-3-steps-from-process-start-batch100",
    "gpt-train-3-steps-from-process-start-batch200",
    "gpt-forwards-late-history",
)


@pytest.mark.parametrize("name", REAL)
def test_the_verdict_on_a_capacity_agrees_with_the_recording(shared_data: Path, name: str) -> None:
    rank = read_trace(shared_data / "snapshots" / f"{name}.pickle").ranks[0]
    recording = read_recording(rank, "cuda:0")
    base = what_if(recording, []).rows[0]
    most, used = base.max_reserved_bytes, base.peak_allocated_bytes
    sizes = {"above": most, "below": most - MIB, "short": used - MIB}
    changes = [Change(name=key, capacity_bytes=size) for key, size in sizes.items()]
    _, above, below, short = what_if(recording, changes).rows
    # With all that it reserved it runs as recorded; with less it has to give something back first.
    assert (above.fits, above.num_alloc_retries) == (True, 0)
    assert (above.max_reserved_bytes, above.peak_allocated_bytes) == (most, used)
    assert above.num_device_mallocs == base.num_device_mallocs
    assert below.num_alloc_retries > 0
    assert not short.fits


def test_advice_names_a_setting_and_its_number() -> None:
    recorder = Recorder(parse_settings(""))
    # Ever longer buffers, as of growing sequences: no freed segment fits the next one.
    for size in range(12, 120, 10):
        address = recorder.malloc(size * MIB)
        assert address is not None
        recorder.free(address)
    recording = read_recording(read_snapshot(recorder.snapshot(), where="simulated"), "cuda:0")
    result = what_if(recording, [], advise=True)
    assert result.advice is not None
    assert "expandable_segments:True" in result.advice
    best = next(row for row in result.rows if row.name == "expandable_segments:True")
    assert best.max_reserved_bytes == 120 * MIB
    assert result.rows[0].max_reserved_bytes == sum(range(12, 120, 10)) * MIB


def program(conf: str, seed: int) -> Recorder:
    """Run a random program, the same for every setting, and return its recording."""
    random, recorder = Random(seed), Recorder(parse_settings(conf))
    live: list[int] = []
    for at in range(500):
        if random.random() < (0.7 if at % 120 < 60 else 0.35):
            size = random.choice([512, 70_000, MIB, 3 * MIB, 9 * MIB, 12 * MIB, 25 * MIB, 70 * MIB])
            address = recorder.malloc(size + 512 * random.randrange(900), random.choice([0, 0, 0, 3]))
            assert address is not None
            live.append(address)
        elif live:
            recorder.free(live.pop(random.randrange(len(live))))
    return recorder


@pytest.mark.parametrize("conf", ["expandable_segments:True", "max_split_size_mb:32", "roundup_power2_divisions:4"])
@pytest.mark.parametrize("seed", range(4))
def test_a_row_is_what_a_run_under_that_setting_records(conf: str, seed: int) -> None:
    plain, changed = (
        read_recording(read_snapshot(program(one, seed).snapshot(), where="simulated"), "cuda:0") for one in ("", conf)
    )
    row = what_if(plain, [Change(name=conf, settings=parse_settings(conf))]).rows[-1]
    recorded = what_if(changed, []).rows[0]
    assert (row.max_reserved_bytes, row.peak_allocated_bytes, row.num_device_mallocs) == (
        recorded.max_reserved_bytes,
        recorded.peak_allocated_bytes,
        recorded.num_device_mallocs,
    )


def test_requests_without_addresses_cannot_be_tried(shared_data: Path) -> None:
    rank = read_trace(shared_data / "kineto" / "resnet50-train-v100-2021-format.json.gz").ranks[0]
    with pytest.raises(MemtraceError, match="without an address"):
        read_recording(rank, "cpu", as_cuda=True)


def test_a_profile_of_a_gpu_can_be_put_through_the_model(shared_data: Path) -> None:
    rank = read_trace(shared_data / "kineto" / "bert-inference-h100.json.gz").ranks[0]
    rows = what_if(read_recording(rank, "cuda:0", as_cuda=True), []).rows
    assert rows[0].max_reserved_bytes >= rows[0].peak_allocated_bytes > 0
