"""Folders of parts become traces, whatever ended the recording."""

from __future__ import annotations

import base64
import struct
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memtrace.errors import TraceReadError, TraceVersionError
from memtrace.schema.version import TRACE_VERSION
from memtrace.store.reading.read import read_trace
from memtrace.store.trace import RankTrace
from tests.builders import START_US, Event, contents, parts, snapshot

START_NS = 1000 * START_US


def only(folder: Path) -> RankTrace:
    (rank,) = read_trace(folder).ranks
    return rank


def events_of(rank: RankTrace) -> list[Event]:
    return [(row["action"], row["address"], row["size_bytes"]) for row in contents(rank)["events"]]


def initial_of(rank: RankTrace) -> list[tuple[int, int, int]]:
    return [(row["window"], row["address"], row["size_bytes"]) for row in contents(rank)["initial_blocks"]]


def slugs(rank: RankTrace) -> list[str]:
    return [warning.slug for warning in rank.warnings]


def test_header_facts_devices_steps_and_optimizers_are_taken(tmp_path: Path) -> None:
    built = parts(tmp_path).header(rank=3, world_size=4, host="node", secret="x")
    built.record("facts", autocast_dtypes=["bfloat16"]).record("device", name="cpu", capacity_bytes=9, kind="cpu")
    built.record("step", step=1, start_ns=5, end_ns=None, recorded=True)
    built.record("step", step=1, end_ns=9, skipped=True, num_microbatches=2)
    built.record("optimizer", class_name="AdamW", group=0, num_parameters=7, options="{}").chunk(step=1).end()
    found = contents(only(tmp_path))
    assert found["header"] == {
        "source": "recorded",
        "rank": 3,
        "world_size": 4,
        "host": "node",
        "pid": 7,
        "autocast_dtypes": ["bfloat16"],
        "devices": [{"name": "cpu", "capacity_bytes": 9, "kind": "cpu"}],
        "allocator_settings": {},
        "end_ns": START_NS,
        "complete": True,
    }
    (step,) = found["steps"]
    assert (step["start_ns"], step["end_ns"], step["skipped"], step["recorded"]) == (5, 9, True, True)
    assert step["host_rss_bytes"] is None
    assert found["optimizers"][0]["class_name"] == "AdamW"


def test_process_that_was_killed_is_incomplete_and_keeps_what_it_wrote(tmp_path: Path) -> None:
    built = parts(tmp_path).header().chunk([("alloc", 1, 5)])
    with built.main.open("a") as file:
        file.write('{"k":"step","step":1,"sta')
    rank = only(tmp_path)
    assert not rank.complete
    assert events_of(rank) == [("alloc", 1, 5)]
    assert len(rank.table("steps")) == 0
    assert rank.header["end_ns"] == START_NS + 10**6


def test_damaged_line_in_the_middle_is_counted(tmp_path: Path) -> None:
    built = parts(tmp_path).header()
    with built.main.open("a") as file:
        file.write("nonsense\n[1]\n")
    rank = only(built.record("step", step=1).end().folder)
    assert [(one.slug, one.count) for one in rank.warnings] == [("lines-damaged", 2)]
    assert len(rank.table("steps")) == 1


def test_chunk_without_its_end_was_cut_off(tmp_path: Path) -> None:
    rank = only(parts(tmp_path).header().chunk([("alloc", 1, 5)], whole=False).end().folder)
    assert slugs(rank) == ["chunk-cut-off"]
    assert not rank.complete
    assert events_of(rank) == [("alloc", 1, 5)]


def test_unknown_records_and_columns_are_ignored_and_counted(tmp_path: Path) -> None:
    built = parts(tmp_path).header().record("future", a=1)
    built.raw_chunk([{"k": "chunk"}, {"k": "dreams", "columns": {}}, {"k": "chunk_end"}]).end()
    assert [(one.slug, one.count) for one in only(tmp_path).warnings] == [("unknown-fields", 2)]


def test_same_warning_again_only_raises_its_count(tmp_path: Path) -> None:
    built = parts(tmp_path).header()
    for count in (1, 2):
        built.record("warning", slug="hook-failed", message="a hook failed", count=count)
    rank = only(built.record("lost", message="a chunk was lost").end().folder)
    assert [(one.slug, one.count) for one in rank.warnings] == [("hook-failed", 3), ("events-lost", 1)]


def test_newer_parts_are_refused(tmp_path: Path) -> None:
    with pytest.raises(TraceVersionError, match=str(TRACE_VERSION + 1)):
        read_trace(parts(tmp_path).header(version=TRACE_VERSION + 1).folder)


def test_missing_main_part_is_said(tmp_path: Path) -> None:
    rank = only(parts(tmp_path).chunk([("alloc", 1, 5)]).folder)
    assert slugs(rank) == ["part-missing"]
    assert not rank.complete


def test_damaged_chunk_does_not_cost_the_others(tmp_path: Path) -> None:
    built = parts(tmp_path).header().chunk([("alloc", 1, 5)])
    bad = {"time_ns": [1], "action": [77], "device": 0, "address": [1], "size_bytes": [1], "stream": 0}
    built.raw_chunk([{"k": "chunk"}, {"k": "strings", "values": []}, {"k": "events", "columns": bad}]).end()
    rank = only(tmp_path)
    assert slugs(rank) == ["chunk-unreadable"]
    assert events_of(rank) == [("alloc", 1, 5)]


def test_frames_and_stacks_of_chunks_become_one_table(tmp_path: Path) -> None:
    built = parts(tmp_path).header()
    for texts in (["alloc", "cpu", "a.py", "f", "g"], ["g", "f", "a.py", "cpu", "alloc"]):
        events = {"time_ns": [1], "action": texts.index("alloc"), "device": texts.index("cpu"), "address": [1 << 8]}
        frames = {"file": [texts.index("a.py")] * 2, "line": [1, 2], "function": [texts.index("f"), texts.index("g")]}
        built.raw_chunk(
            [
                {"k": "chunk", "start_ns": 1, "end_ns": 2},
                {"k": "strings", "values": texts},
                {"k": "frames", "columns": frames},
                {"k": "stacks", "columns": {"frame": [0, 1], "parent": [None, 0]}},
                {"k": "events", "columns": {**events, "size_bytes": [4], "stream": 0, "stack": [1]}},
                {"k": "chunk_end"},
            ]
        )
    rank = only(built.end().folder)
    assert (len(rank.table("frames")), len(rank.table("stacks"))) == (2, 2)
    assert rank.table("events")["stack"].tolist() == [1, 1]


def test_free_of_an_unknown_block_means_it_was_live_at_the_start(tmp_path: Path) -> None:
    rank = only(parts(tmp_path).header().chunk([("free_completed", 1, 5), ("alloc", 1, 6)]).end().folder)
    assert initial_of(rank) == [(0, 1, 5)]
    assert slugs(rank) == []


def test_alloc_at_a_live_address_means_that_its_free_was_not_seen(tmp_path: Path) -> None:
    rank = only(parts(tmp_path).header().chunk([("alloc", 1, 5), ("alloc", 2, 7), ("alloc", 1, 6)]).end().folder)
    assert events_of(rank) == [("alloc", 1, 5), ("alloc", 2, 7), ("free_completed", 1, 5), ("alloc", 1, 6)]
    assert [(one.slug, one.count) for one in rank.warnings] == [("free-not-seen", 1)]
    times = rank.table("events")["time_ns"]
    assert times[2] == times[3]
    assert rank.table("windows")["num_events"].tolist() == [4]


def test_a_note_counts_the_blocks_that_were_not_seen(tmp_path: Path) -> None:
    twice = [("alloc", at, 5) for at in (1, 2, 3)] * 2 + [("free_completed", at, 5) for at in (1, 2)] * 2
    rank = only(parts(tmp_path).header().chunk(twice).end().folder)
    assert {one.slug: one.count for one in rank.warnings} == {"free-not-seen": 3, "alloc-not-seen": 2}


def test_second_free_of_an_address_means_that_an_alloc_was_not_seen(tmp_path: Path) -> None:
    events = [("alloc", 1, 5), ("free_completed", 1, 5), ("free_completed", 1, 8)]
    rank = only(parts(tmp_path).header().chunk(events).end().folder)
    assert events_of(rank) == [*events[:2], ("alloc", 1, 8), events[2]]
    assert [(one.slug, one.count) for one in rank.warnings] == [("alloc-not-seen", 1)]


def test_windows_that_continue_are_one_stretch(tmp_path: Path) -> None:
    built = parts(tmp_path).header().chunk([("alloc", 1, 5)]).chunk([("free_completed", 1, 5)], continues=True)
    rank = only(built.chunk([("free_completed", 2, 9)], continues=False).end().folder)
    assert initial_of(rank) == [(2, 2, 9)]
    assert [row["continues"] for row in rank.table("windows").rows()] == [False, True, False]
    assert [row["first_event"] for row in rank.table("windows").rows()] == [0, 1, 2]


def test_window_after_a_dropped_chunk_does_not_continue(tmp_path: Path) -> None:
    built = parts(tmp_path).header().chunk([("alloc", 1, 5)]).drop_chunk().chunk([("alloc", 2, 5)], continues=True)
    assert [row["continues"] for row in only(built.end().folder).table("windows").rows()] == [False, False]


def test_owner_that_no_event_touched_was_live_at_the_start(tmp_path: Path) -> None:
    built = parts(tmp_path).header()
    built.chunk([("alloc", 1, 5)], owners=[(1, 5, "seen"), (9, 40, "before"), (9, 40, "tied")])
    assert initial_of(only(built.end().folder)) == [(0, 9, 40)]


def test_snapshots_that_were_cleared_between_join_without_a_gap(tmp_path: Path) -> None:
    dump = snapshot().alloc(1 << 9, 5).alloc(1 << 10, 6)
    built = parts(tmp_path).header().record("device", name="cuda:0").native_chunk(dump)
    dump.clear_history().free(1 << 9).alloc(1 << 9, 7)
    rank = only(built.native_chunk(dump).end().folder)
    assert events_of(rank) == [
        ("alloc", 1 << 9, 5),
        ("alloc", 1 << 10, 6),
        ("free_requested", 1 << 9, 5),
        ("free_completed", 1 << 9, 5),
        ("alloc", 1 << 9, 7),
    ]
    assert [row["continues"] for row in rank.table("windows").rows()] == [False, True]
    assert initial_of(rank) == []
    assert len(rank.table("segments")) == 2
    assert rank.header["allocator_settings"] == {"PYTORCH_CUDA_ALLOC_CONF": "", "events_name_pool": False}


def test_events_that_a_later_snapshot_repeats_are_dropped(tmp_path: Path) -> None:
    dump = snapshot()
    for at in range(100):
        dump.alloc((at + 1) << 9, 5).free((at + 1) << 9)
    built = parts(tmp_path).header().native_chunk(dump)
    dump.alloc(1 << 30, 7)
    rank = only(built.native_chunk(dump).end().folder)
    assert len(rank.table("events")) == 301
    assert rank.table("windows")["num_events"].tolist() == [300, 1]
    assert [row["continues"] for row in rank.table("windows").rows()] == [False, True]


def test_repeated_events_are_found_though_their_times_moved(tmp_path: Path) -> None:
    dump = snapshot()
    for at in range(100):
        dump.alloc((at % 7 + 1) << 9, at + 1).free((at % 7 + 1) << 9)
    built = parts(tmp_path).header().native_chunk(dump)
    dump.alloc(1 << 30, 7)
    for event in dump.build()["device_traces"][0]:
        event["time_us"] += 35  # three and a half events later
    rank = only(built.native_chunk(dump).end().folder)
    assert len(rank.table("events")) == 301


def test_snapshot_after_a_gap_begins_with_its_own_blocks(tmp_path: Path) -> None:
    dump = snapshot().alloc(1 << 9, 5)
    built = parts(tmp_path).header().native_chunk(dump)
    dump.alloc(1 << 10, 6).clear_history().alloc(1 << 11, 7)
    rank = only(built.native_chunk(dump).end().folder)
    assert [row["continues"] for row in rank.table("windows").rows()] == [False, False]
    assert initial_of(rank) == [(1, 1 << 9, 5), (1, 1 << 10, 6)]


def test_events_that_left_the_rolling_window_are_dropped(tmp_path: Path) -> None:
    dump = snapshot().alloc(1 << 9, 5).alloc(1 << 10, 6).free(1 << 9)
    keep_from_ns = 1000 * (START_US + 20)
    rank = only(parts(tmp_path).header().native_chunk(dump, keep_from_ns=keep_from_ns).end().folder)
    assert events_of(rank)[0] == ("alloc", 1 << 10, 6)
    assert initial_of(rank) == [(0, 1 << 9, 5)]
    # What is seen right when the window opens, before its first event, is of the blocks it begins with.
    assert [row["start_ns"] for row in rank.table("windows").rows()] == [keep_from_ns]


def test_hostile_snapshot_beside_a_chunk_is_refused_and_the_rest_is_read(tmp_path: Path) -> None:
    built = parts(tmp_path).header().chunk([("alloc", 1, 5)])
    built.native_chunk(snapshot().alloc(1 << 9, 5)).end()
    (dump,) = tmp_path.glob("*.pickle")
    dump.write_bytes(b"cos\nsystem\n(S'true'\ntR.")
    rank = only(tmp_path)
    assert slugs(rank) == ["chunk-unreadable"]
    assert events_of(rank) == [("alloc", 1, 5)]


def test_every_process_is_a_rank(tmp_path: Path) -> None:
    for number in (1, 0):
        parts(tmp_path, f"rank{number:05d}-host-{number}-aa").header(rank=number, world_size=3, pid=number).end()
    trace = read_trace(tmp_path)
    assert [rank.rank for rank in trace.ranks] == [0, 1]
    assert [(one.slug, one.count) for one in trace.warnings] == [("missing-ranks", 1)]


def test_part_named_by_itself_is_refused_with_a_hint(tmp_path: Path) -> None:
    with pytest.raises(TraceReadError) as caught:
        read_trace(parts(tmp_path).header().end().main)
    assert "folder" in str(caught.value.hint)


@settings(deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.integers(1, 5), st.integers(1, 100)), max_size=40))
def test_reconciled_events_never_free_twice_nor_allocate_twice(moves: list[tuple[bool, int, int]]) -> None:
    import numpy as np

    from memtrace.schema.tables import EVENTS
    from memtrace.store.reconcile import reconcile

    columns = {name: np.zeros(len(moves), np.int64) for name in EVENTS.column_names()}
    columns["action"] = np.array([is_alloc for is_alloc, _, _ in moves], np.int64)
    columns["address"] = np.array([address for _, address, _ in moves], np.int64)
    columns["size_bytes"] = np.array([size for _, _, size in moves], np.int64)
    whole = reconcile(columns, alloc=1, free=0)
    live = set(whole.initial_address.tolist())
    for action, address in zip(whole.columns["action"].tolist(), whole.columns["address"].tolist(), strict=True):
        assert (address in live) != bool(action)
        live ^= {address}
    added = whole.num_frees_not_seen + whole.num_allocs_not_seen
    assert len(whole.columns["action"]) == len(moves) + added


def packed(values: list[int]) -> dict[str, str]:
    """Return a column as the hooks write long ones."""
    return {"int64": base64.b64encode(struct.pack(f"<{len(values)}q", *values)).decode()}


def chunk_with(column: object) -> list[dict[str, object]]:
    """Return the records of a chunk with two events, at these addresses."""
    columns = {"time_ns": [START_NS, START_NS + 1], "action": [0, 1], "device": 2, "size_bytes": [64, 64], "stream": 0}
    return [
        {"k": "chunk", "number": 0, "step": 0, "reason": "start", "start_ns": START_NS, "end_ns": START_NS + 9},
        {"k": "strings", "values": ["alloc", "free_completed", "cpu"]},
        {"k": "events", "columns": {**columns, "address": column}},
        {"k": "chunk_end"},
    ]


def test_columns_may_be_written_as_bytes(tmp_path: Path) -> None:
    addresses = [2**46 + 512, 2**46 + 512]
    for name, column in (("list", addresses), ("bytes", packed(addresses))):
        parts(tmp_path / name).header().raw_chunk(chunk_with(column)).end()
    as_list, as_bytes = (events_of(only(tmp_path / name)) for name in ("list", "bytes"))
    assert as_bytes == as_list == [("alloc", addresses[0], 64), ("free_completed", addresses[0], 64)]


@pytest.mark.parametrize(
    "column",
    [
        {},
        {"int64": None},
        {"int64": 5},
        {"int64": "é"},
        {"int64": "AAA"},
        {"int64": "AAAA"},
        {"int64": "????AAAA"},
        {"int64": ["AAAA"]},
        packed([1, 2, 3]),
        {"int32": packed([1, 2])["int64"]},
    ],
)
def test_damaged_bytes_of_a_column_cost_their_chunk(tmp_path: Path, column: object) -> None:
    rank = only(parts(tmp_path).header().raw_chunk(chunk_with(column)).chunk([("alloc", 512, 8)]).end().folder)
    assert slugs(rank) == ["chunk-unreadable"]
    assert events_of(rank) == [("alloc", 512, 8)]


def test_strings_that_come_again_are_those_of_what_follows(tmp_path: Path) -> None:
    def owners(name: int) -> dict[str, object]:
        columns = {"time_ns": START_NS, "step": 1, "device": 0, "address": [512], "size_bytes": 8, "tensor_bytes": 8}
        return {"k": "owners", "columns": {**columns, "category": 1, "name": name}}

    head, _, _, end = chunk_with([])
    lines = [
        {"k": "strings", "values": ["cpu", "parameter", "first"]},
        owners(2),
        {"k": "strings", "values": ["cpu", "parameter", "unused", "second"]},
        owners(3),
    ]
    rank = only(parts(tmp_path).header().raw_chunk([head, *lines, end]).end().folder)
    assert [row["name"] for row in contents(rank)["owners"]] == ["first", "second"]
