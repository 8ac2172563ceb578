"""Snapshots become tables: events, stacks, the state before the history, windows, annotations, warnings."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memtrace.errors import TraceReadError
from memtrace.store.snapshots.torch_snapshot import read_snapshot
from memtrace.store.trace import RankTrace
from tests.builders import START_US, SnapshotBuilder, contents, snapshot

INNER, OUTER = ("model.py", 12, "forward"), ("train.py", 3, "main")


def read(data: Any) -> RankTrace:
    return read_snapshot(data, where="built")


def slugs(rank: RankTrace) -> list[str]:
    return [warning.slug for warning in rank.warnings]


def test_events_keep_their_order_sizes_and_times() -> None:
    rows = contents(read(snapshot().alloc(0x1000, 700).free(0x1000).build()))["events"]
    assert [(row["action"], row["address"], row["size_bytes"], row["time_ns"]) for row in rows] == [
        (action, 0x1000, 700, 1000 * (START_US + 10 * at))
        for at, action in enumerate(("alloc", "free_requested", "free_completed"), start=1)
    ]
    assert {row["device"] for row in rows} == {"cuda:0"}


def test_stacks_that_share_callers_share_rows() -> None:
    rank = read(snapshot().alloc(1, 1, frames=[INNER, OUTER]).alloc(2, 1, frames=[OUTER]).build())
    events, stacks = rank.table("events"), rank.table("stacks")
    inner, outer = events["stack"].tolist()
    assert len(stacks) == 2
    assert stacks["parent"][inner] == outer
    assert stacks.row(outer)["parent"] is None
    frame = rank.table("frames").row(int(stacks["frame"][inner]))
    assert (rank.strings[frame["file"]], frame["line"], rank.strings[frame["function"]]) == INNER


def test_equal_frames_that_are_not_shared_are_one_stack() -> None:
    data = snapshot().alloc(1, 1, frames=[INNER, OUTER]).alloc(2, 1, frames=[OUTER]).build()
    data["device_traces"][0] = [pickle.loads(pickle.dumps(event)) for event in data["device_traces"][0]] * 2
    assert len(read(data).table("stacks")) == 2


def test_event_without_frames_has_no_stack() -> None:
    data = snapshot().alloc(1, 1, frames=[INNER]).alloc(2, 1).build()
    del data["device_traces"][0][1]["frames"]
    assert [row["stack"] for row in read(data).table("events").rows()] == [0, None]


def test_block_freed_in_the_history_was_live_before_it() -> None:
    rank = read(snapshot().live_before(1, 300).live_before(2, 40).alloc(3, 5).free(1).build())
    blocks = contents(rank)["initial_blocks"]
    assert [(one["address"], one["size_bytes"], one["window"]) for one in blocks] == [(1, 300, 0), (2, 40, 0)]
    window = contents(rank)["windows"][0]
    assert (window["initial_bytes"], window["reason"], window["num_events"]) == (340, "resume", 3)


def test_block_awaiting_a_stream_is_live() -> None:
    data = snapshot().live_before(1, 300).alloc(2, 5).build()
    data["segments"][0]["blocks"][0]["state"] = "active_pending_free"
    assert contents(read(data))["initial_blocks"][0]["address"] == 1


def test_each_device_with_a_history_is_a_window() -> None:
    data = snapshot().alloc(1, 5, device=0).live_before(7, 9, device=2).alloc(1, 6, device=2).free(1, device=2).build()
    found = contents(read(data))
    assert [row["device"] for row in found["events"]] == ["cuda:0"] + ["cuda:2"] * 3
    assert [(one["first_event"], one["num_events"], one["initial_bytes"]) for one in found["windows"]] == [
        (0, 1, 0),
        (1, 3, 9),
    ]
    assert [(one["window"], one["device"]) for one in found["initial_blocks"]] == [(1, "cuda:2")]
    assert [one["name"] for one in found["header"]["devices"]] == ["cuda:0", "cuda:2"]


def test_oom_has_no_address_and_the_free_memory_of_the_device() -> None:
    rows = contents(read(snapshot().alloc(1, 5).oom(900, device_free=64).build()))["events"]
    assert (rows[1]["action"], rows[1]["address"], rows[1]["device_free_bytes"]) == ("oom", None, 64)
    assert rows[0]["device_free_bytes"] is None


def test_annotations_are_paired_and_loose_ends_are_null() -> None:
    built = snapshot().annotate("late", "END").annotate("step", "START").alloc(1, 5).annotate("step", "START")
    built.annotate("step", "END").annotate("step", "END").annotate("open", "START")
    rows = contents(read(built.build()))["annotations"]
    time = [1000 * (START_US + 10 * at) for at in range(8)]
    assert [(row["name"], row["start_ns"], row["end_ns"]) for row in rows] == [
        ("late", None, time[1]),
        ("step", time[2], time[6]),
        ("step", time[4], time[5]),
        ("open", time[7], None),
    ]


def test_list_of_segments_is_a_snapshot_without_history() -> None:
    assert slugs(read(snapshot().live_before(1, 5).build()["segments"])) == ["no-history"]


def test_empty_snapshot_of_a_machine_without_gpu_is_read() -> None:
    assert slugs(read({"segments": [], "device_traces": []})) == ["no-history"]


def test_blocks_before_torch_2_1_get_their_addresses_and_frames() -> None:
    data = snapshot().live_before(4096, 512).build()
    segment = data["segments"][0]
    history = [{"addr": 4096, "real_size": 400, "frames": [{"filename": "a.py", "line": 1, "name": "f"}]}]
    segment["total_size"] = 1536
    segment["blocks"] = [
        {"size": 512, "requested_size": 400, "state": "active_allocated", "history": history},
        {"size": 1024, "state": "inactive"},
    ]
    found = contents(read(data))
    assert [(one["address"], one["requested_bytes"], one["stack"]) for one in found["blocks"]] == [
        (4096, 400, 0),
        (4608, None, None),
    ]


def test_events_without_times_are_kept_in_order() -> None:
    data = snapshot().alloc(1, 5).alloc(2, 5).build()
    for event in data["device_traces"][0]:
        del event["time_us"]
    rank = read(data)
    assert slugs(rank) == ["no-event-times"]
    assert rank.table("windows").row(0)["start_ns"] is None


def test_actions_of_a_newer_torch_are_kept_by_name_and_counted() -> None:
    data = snapshot().alloc(1, 5).alloc(2, 5).build()
    data["device_traces"][0].append({**data["device_traces"][0][0], "action": "teleport"})
    rank = read(data)
    assert [(one.slug, one.count) for one in rank.warnings] == [("unknown-action", 1)]
    assert contents(rank)["events"][2]["action"] == "teleport"


@pytest.mark.parametrize("action", [None, 3, b"alloc", ["alloc"]])
def test_an_action_that_is_no_text_is_refused(action: Any) -> None:
    data = snapshot().alloc(1, 5).alloc(2, 5).build()
    data["device_traces"][0][1]["action"] = action
    with pytest.raises(TraceReadError, match="an action that is not a text"):
        read(data)


def test_history_of_a_round_length_that_began_late_may_be_cut() -> None:
    built = snapshot().live_before(1, 5)
    for at in range(2000):
        built.alloc(1 << 20 | at << 9, 5)
    assert slugs(read(built.build())) == ["history-overflowed"]


def test_history_that_cannot_be_true_is_said_to_be_so() -> None:
    data = snapshot().alloc(1 << 12, 10_000).free(1 << 12).build()
    data["segments"][0]["total_size"] = 512
    assert slugs(read(data)) == ["physically-inconsistent"]


def test_events_that_contradict_the_segments_are_counted() -> None:
    data = snapshot().alloc(1 << 12, 512).alloc(1 << 13, 512).build()
    data["segments"][0]["blocks"][0]["state"] = "inactive"
    assert [(one.slug, one.count) for one in read(data).warnings] == [("contradictory-history", 1)]


def test_lone_surrogates_in_names_are_replaced(tmp_path: Path) -> None:
    rank = read(snapshot().alloc(1, 5, frames=[("bad\udc80name.py", 1, "f")]).build())
    assert rank.strings[int(rank.table("frames")["file"][0])] == "bad?name.py"


Moves = st.lists(st.tuples(st.integers(0, 6), st.integers(1, 5000)), max_size=60)


def run(built: SnapshotBuilder, moves: list[tuple[int, int]], live: dict[int, int]) -> None:
    """Free the block at an address if it is live, else allocate one there."""
    for slot, size in moves:
        address = (slot + 1) << 20
        if address in live:
            built.free(address)
            del live[address]
        else:
            built.alloc(address, size)
            live[address] = size


@settings(deadline=None)
@given(before=Moves, after=Moves)
def test_undoing_the_history_gives_what_was_live_before_it(
    before: list[tuple[int, int]], after: list[tuple[int, int]]
) -> None:
    built, live = snapshot(), dict[int, int]()
    run(built, before, live)
    expected = dict(live)
    built.clear_history()
    run(built, after, live)
    rank = read(built.build())
    if not len(rank.table("windows")):
        return  # a single free is no history
    blocks = rank.table("initial_blocks")
    assert dict(zip(blocks["address"].tolist(), blocks["size_bytes"].tolist(), strict=True)) == expected
    assert "contradictory-history" not in slugs(rank)
