"""Long histories read as columns: the same trace as event by event, whatever the pickle holds, or not packed at all."""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest

from memtrace.errors import TraceReadError
from memtrace.store.snapshots.packed_events import PackedEvents, packed_snapshot
from memtrace.store.snapshots.restricted_pickle import load_plain_pickle
from memtrace.store.snapshots.torch_snapshot import read_snapshot
from memtrace.store.trace import RankTrace
from tests.allocator.test_replay import random_recording

Event = dict[str, Any]


def as_torch_writes(seed: int, *, num_devices: int = 1) -> dict[str, Any]:
    """Return a snapshot as torch makes it: own lists of shared frames, but that completed frees share one."""
    random = Random(seed)
    frames = [{"name": f"f{at}", "filename": f"/a/file{at % 7}.py", "line": at} for at in range(300)]
    stacks = [random.sample(frames, random.choice([0, 1, 2, 5, 40])) for _ in range(30)]
    snapshot = random_recording("", seed).snapshot()
    snapshot["external_annotations"] = []
    before: list[Any] = []
    for event in snapshot["device_traces"][0]:
        shares = event["action"] == "free_completed" and random.random() < 0.9
        before = before if shares else list(random.choice(stacks))
        numbers = {"compile_context": "".join(["N", "/A"]), "user_metadata": "", "pool_id": (0, int("0"))}
        time_us = event.pop("time_us")
        del event["frames"]
        event |= {"time_us": time_us, **numbers, "frames": before}
    snapshot["device_traces"] += [[] for _ in range(num_devices - 1)]
    if num_devices > 1:
        lists = {id(one["frames"]): list(one["frames"]) for one in snapshot["device_traces"][0]}
        snapshot["device_traces"][-1] = [
            {**one, "frames": lists[id(one["frames"])]} for one in snapshot["device_traces"][0]
        ]
    return snapshot


def plain(content: bytes) -> Any:
    return load_plain_pickle(io.BytesIO(content), size_bytes=len(content), where="plain")


def described(rank: RankTrace) -> tuple[Any, ...]:
    tables = {
        (name, column): values.tolist()
        for name, table in rank.tables.items()
        for column, values in table.columns.items()
    }
    return rank.header, rank.strings, rank.warnings, tables


def outcome(value: Callable[[], Any]) -> tuple[Any, ...]:
    """Return the trace that a pickle holds, or the sentence that refuses it."""
    try:
        return described(read_snapshot(value(), where="here"))
    except TraceReadError as error:
        return (error.message,)


def check_same(content: bytes) -> Any | None:
    """Return the packed value of a pickle that makes the same trace as the plain one; `None` if it is not packed."""
    packed = packed_snapshot(content, where="packed")
    if packed is not None:
        assert outcome(lambda: packed) == outcome(lambda: plain(content))
    return packed


def num_packed(value: Any) -> int:
    return sum(len(one.packed_at) for one in value["device_traces"] if isinstance(one, PackedEvents))


def test_every_real_recording_reads_the_same(shared_data: Path) -> None:
    packed = {}
    for path in sorted((shared_data / "snapshots").glob("*.pickle")):
        value = check_same(path.read_bytes())
        packed[path.stem] = 0 if value is None else num_packed(value)
    most = max(packed.values())
    assert most > 20_000, packed


@pytest.mark.parametrize("protocol", [4, 5])
@pytest.mark.parametrize("num_devices", [1, 3])
def test_a_history_as_torch_writes_it_is_packed_nearly_whole(protocol: int, num_devices: int) -> None:
    snapshot = as_torch_writes(1, num_devices=num_devices)
    value = check_same(pickle.dumps(snapshot, protocol=protocol))
    assert value is not None
    num_events = sum(map(len, snapshot["device_traces"]))
    assert num_packed(value) > 0.8 * num_events > 1000


@pytest.mark.parametrize("protocol", [0, 2, 3])
def test_an_old_pickle_is_not_packed(protocol: int) -> None:
    assert packed_snapshot(pickle.dumps(as_torch_writes(1), protocol=protocol), where="old") is None


def events_in_a_text(snapshot: dict[str, Any]) -> None:
    """Put the bytes of events where a text is: they are none."""
    content = pickle.dumps(snapshot, protocol=4)
    middle = content.index(b"}\x94(", len(content) // 2)
    snapshot["segments"][0]["frames"] = [
        {"name": "f", "line": 1, "filename": content[middle:][:4000].decode("latin-1")}
    ]


def list_used_again(snapshot: dict[str, Any]) -> None:
    """Let what comes later hold the list of frames of an event in the middle."""
    events = snapshot["device_traces"][0]
    shared = next(one["frames"] for one in events[len(events) // 2 :] if one["frames"])
    events[-3]["frames"] = events[-2]["frames"] = shared


def segments_at_the_end(snapshot: dict[str, Any]) -> None:
    """Let blocks that are written after the events hold lists of theirs."""
    segments, events = snapshot.pop("segments"), snapshot["device_traces"][0]
    segments[0]["blocks"][0]["frames"] = next(one["frames"] for one in events[len(events) // 2 :] if one["frames"])
    snapshot["segments"] = segments


def lists_of_another_device(snapshot: dict[str, Any]) -> None:
    """Let a second device hold the lists of the first."""
    snapshot["device_traces"].append([dict(event) for event in snapshot["device_traces"][0]])


def event_twice(snapshot: dict[str, Any]) -> None:
    """Let the history hold one dict twice."""
    events = snapshot["device_traces"][0]
    events.insert(len(events) // 2 + 50, events[len(events) // 2])


def other_numbers(snapshot: dict[str, Any]) -> None:
    """Let numbers have every length, negative ones among them."""
    for at, event in enumerate(snapshot["device_traces"][0]):
        event["stream"] = [0, 255, 256, 65_535, 65_536, -1, 2**31, -(2**31), -(2**40), 2**62][at % 10]


def without_a_time(snapshot: dict[str, Any]) -> None:
    """Let no event have a time, as before torch 2.2."""
    for event in snapshot["device_traces"][0]:
        del event["time_us"]


def some_without_frames(snapshot: dict[str, Any]) -> None:
    """Let some events have fewer keys."""
    for event in snapshot["device_traces"][0][::7]:
        del event["frames"]


def unknown_action(snapshot: dict[str, Any]) -> None:
    """Let an action be one of a newer torch."""
    for event in snapshot["device_traces"][0][::3]:
        event["action"] = "teleport"


def too_late(snapshot: dict[str, Any]) -> None:
    """Let an event be beyond what a time can be."""
    snapshot["device_traces"][0][400]["time_us"] = 2**62


CHANGES = (
    events_in_a_text,
    list_used_again,
    segments_at_the_end,
    lists_of_another_device,
    event_twice,
    other_numbers,
    without_a_time,
    some_without_frames,
    unknown_action,
    too_late,
)


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_what_torch_does_not_write_reads_the_same(change: Callable[[dict[str, Any]], None]) -> None:
    snapshot = as_torch_writes(2)
    change(snapshot)
    check_same(pickle.dumps(snapshot, protocol=4))


def test_a_damaged_pickle_reads_the_same_or_is_not_packed() -> None:
    content = pickle.dumps(as_torch_writes(3), protocol=4)
    still_packed = 0
    for seed in range(150):
        random, damaged = Random(seed), bytearray(content)
        for _ in range(random.choice([1, 1, 3])):
            damaged[random.randrange(len(damaged))] = random.choice([random.randrange(256), 0x94, 0x28, ord("h")])
        still_packed += check_same(bytes(damaged)) is not None
    # Most bytes are references and numbers, so that many of these are still pickles of histories.
    assert still_packed > 20


def test_a_cut_off_pickle_is_not_packed() -> None:
    content = pickle.dumps(as_torch_writes(4), protocol=4)
    for length in np.linspace(0, len(content) - 1, 40).astype(int).tolist():
        assert packed_snapshot(content[:length], where="cut") is None


def test_code_in_a_pickle_is_refused_by_name_and_not_run() -> None:
    snapshot = as_torch_writes(5)
    snapshot["allocator_settings"] = {"backend": print}
    content = pickle.dumps(snapshot, protocol=4)
    assert packed_snapshot(content, where="code") is None
    with pytest.raises(TraceReadError, match="would run code"):
        plain(content)
