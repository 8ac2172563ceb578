"""Recordings that other people made on real GPUs, checked against what must hold in every one of them."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from memtrace.store.columns import NULL, IntArray
from memtrace.store.reading.read import read_trace
from memtrace.store.snapshots.restricted_pickle import load_plain_pickle
from memtrace.store.trace import RankTrace

SNAPSHOTS = (
    "anonymised-physically-inconsistent",
    "attention-forward-backward-from-process-start",
    "gpt-forward-warm-nets-to-zero",
    "gpt-forwards-late-history",
    "gpt-inference-from-process-start",
    "gpt-medium-512-train-warm-step-unsplit-live-blocks",
    "gpt-medium-inference-late-history",
    "gpt-medium-train-warm-step-late-history",
    "gpt-train-3-steps-from-process-start-batch100",
    "gpt-train-3-steps-from-process-start-batch200",
    "gpt-train-windows-frameless-backward",
    "kv-cache-inference-one-stray-event",
    "segments-only-at-oom-torch-2.1",
    "segments-only-fragmented",
    "segments-only-one-stray-event",
    "segments-only-three-pools-pending-free",
)
WITHOUT_HISTORY = tuple(name for name in SNAPSHOTS if "segments-only" in name or "stray" in name)
FROM_PROCESS_START = tuple(name for name in SNAPSHOTS if "from-process-start" in name)
WITH_MEMORY_EVENTS = (
    "resnet50-train-v100-2021-format",
    "vit-inference-h100",
    "bert-inference-h100",
    "vit-inference-mi300x",
    "norm-layers-forward-backward-mi300x",
)


def rank_of(shared_data: Path, name: str) -> RankTrace:
    return read_trace(shared_data / "snapshots" / f"{name}.pickle").ranks[0]


def raw_of(shared_data: Path, name: str) -> dict[str, Any]:
    path = shared_data / "snapshots" / f"{name}.pickle"
    with path.open("rb") as file:
        data: dict[str, Any] = load_plain_pickle(file, size_bytes=path.stat().st_size, where=name)
    return data


def profile_of(shared_data: Path, name: str) -> tuple[Path, list[dict[str, Any]]]:
    path = shared_data / "kineto" / f"{name}.json.gz"
    document = json.loads(gzip.decompress(path.read_bytes()))
    return path, document["traceEvents"] if isinstance(document, dict) else document


def slugs(rank: RankTrace) -> set[str]:
    return {warning.slug for warning in rank.warnings}


def final_live_blocks(raw: dict[str, Any]) -> dict[int, int]:
    """Return address and requested size of the blocks in use, straight from the segments."""
    return {
        block["address"]: block["requested_size"]
        for segment in raw["segments"]
        for block in segment["blocks"]
        if block["state"] != "inactive"
    }


def replayed(rank: RankTrace) -> tuple[dict[int, int], int]:
    """Return the live blocks after a plain replay from the initial blocks, and how many events did not fit."""
    blocks, events = rank.table("initial_blocks"), rank.table("events")
    live = dict(zip(blocks["address"].tolist(), blocks["size_bytes"].tolist(), strict=True))
    num_wrong = 0
    actions = [rank.strings[action] for action in events["action"].tolist()]
    for action, address, size in zip(actions, events["address"].tolist(), events["size_bytes"].tolist(), strict=True):
        if action == "alloc":
            num_wrong += address in live
            live[address] = size
        elif action == "free_completed":
            num_wrong += live.pop(address, None) != size
    return live, num_wrong


def test_every_file_is_listed(shared_data: Path) -> None:
    assert sorted(path.stem for path in (shared_data / "snapshots").glob("*.pickle")) == sorted(SNAPSHOTS)


@pytest.mark.parametrize("name", [name for name in SNAPSHOTS if name not in WITHOUT_HISTORY])
def test_replay_from_the_initial_blocks_ends_in_the_segments(shared_data: Path, name: str) -> None:
    rank = rank_of(shared_data, name)
    live, num_wrong = replayed(rank)
    assert num_wrong == 0
    assert live == final_live_blocks(raw_of(shared_data, name))


@pytest.mark.parametrize("name", FROM_PROCESS_START)
def test_history_from_process_start_begins_with_nothing(shared_data: Path, name: str) -> None:
    rank = rank_of(shared_data, name)
    assert len(rank.table("initial_blocks")) == 0
    window = rank.table("windows").row(0)
    assert (window["initial_bytes"], rank.strings[window["reason"]]) == (0, "start")


@pytest.mark.parametrize("name", SNAPSHOTS)
def test_segments_and_blocks_hold_the_snapshots_own_totals(shared_data: Path, name: str) -> None:
    rank, raw = rank_of(shared_data, name), raw_of(shared_data, name)
    segments, blocks = rank.table("segments"), rank.table("blocks")
    for column, key in (("total_bytes", "total_size"), ("allocated_bytes", "allocated_size")):
        assert segments[column].tolist() == [segment[key] for segment in raw["segments"]]
    if "anonymised" in name:
        return  # its blocks do not even fill their segments
    # Blocks tile their segment, also where the file (before torch 2.1) gives them no address.
    ends = blocks["address"] + blocks["size_bytes"]
    is_last = np.append(blocks["segment"][1:] != blocks["segment"][:-1], True)
    assert (blocks["address"][1:] == ends[:-1])[~is_last[:-1]].all()
    segment_ends = segments["address"] + segments["total_bytes"]
    assert (ends[is_last] == segment_ends[blocks["segment"][is_last]]).all()


@pytest.mark.parametrize("name", SNAPSHOTS)
def test_stacks_are_those_of_the_file(shared_data: Path, name: str) -> None:
    rank, raw = rank_of(shared_data, name), raw_of(shared_data, name)
    frames, stacks, events = rank.table("frames"), rank.table("stacks"), rank.table("events")
    history = [event for trace in raw["device_traces"] for event in trace]
    for at in range(0, len(history), max(1, len(history) // 200)):
        expected = [(one["filename"], one["line"], one["name"]) for one in history[at].get("frames", ())]
        found, stack = [], int(events["stack"][at])
        while stack != NULL:
            frame = frames.row(int(stacks["frame"][stack]))
            found.append((rank.strings[frame["file"]], frame["line"], rank.strings[frame["function"]]))
            stack = int(stacks["parent"][stack])
        assert found == expected


@pytest.mark.parametrize("name", WITHOUT_HISTORY)
def test_snapshot_without_history_has_no_window_and_says_so(shared_data: Path, name: str) -> None:
    rank = rank_of(shared_data, name)
    assert len(rank.table("windows")) == 0
    assert "no-history" in slugs(rank)
    assert ("stray-events" in slugs(rank)) == (len(rank.table("events")) > 0)


def test_only_the_anonymised_snapshot_is_physically_inconsistent(shared_data: Path) -> None:
    inconsistent = [name for name in SNAPSHOTS if "physically-inconsistent" in slugs(rank_of(shared_data, name))]
    assert inconsistent == ["anonymised-physically-inconsistent"]


def test_annotations_are_ranges(shared_data: Path) -> None:
    name = "gpt-train-3-steps-from-process-start-batch100"
    rank, raw = rank_of(shared_data, name), raw_of(shared_data, name)["external_annotations"]
    table = rank.table("annotations")
    assert (table["end_ns"] >= table["start_ns"]).all()
    starts = [(one["name"], one["time_us"] * 1000) for one in raw if one["stage"] == "START"]
    assert [(rank.strings[row["name"]], row["start_ns"]) for row in table.rows()] == starts


def test_every_profile_loads(shared_data: Path) -> None:
    for path in sorted((shared_data / "kineto").glob("*.json.gz")):
        rank = read_trace(path).ranks[0]
        assert rank.source == "kineto"
        assert len(rank.table("kernels"))


@pytest.mark.parametrize("name", WITH_MEMORY_EVENTS)
def test_memory_events_of_a_profile_are_kept_one_by_one(shared_data: Path, name: str) -> None:
    path, raw = profile_of(shared_data, name)
    rank = read_trace(path).ranks[0]
    events = rank.table("events")
    sign = np.where(events["action"] == rank.string_id("alloc"), 1, -1)
    kinds = {0: "cpu", 1: "cuda", 6: "hip"}
    expected: dict[str, list[int]] = {}
    for one in sorted((one for one in raw if one["name"] == "[memory]"), key=lambda one: one["ts"]):
        expected.setdefault(kinds[one["args"]["Device Type"]], []).append(one["args"]["Bytes"])
    for kind, signed in expected.items():
        of_device = np.array([rank.strings[device].startswith(kind) for device in events["device"].tolist()])
        assert (sign * events["size_bytes"])[of_device].tolist() == signed


@pytest.mark.parametrize("name", WITH_MEMORY_EVENTS[1:])
def test_total_of_a_profile_moves_by_each_event(shared_data: Path, name: str) -> None:
    path, _ = profile_of(shared_data, name)
    rank = read_trace(path).ranks[0]
    events = rank.table("events")
    signed = np.where(events["action"] == rank.string_id("alloc"), 1, -1) * events["size_bytes"]
    for row in rank.table("windows").rows():
        first, end = row["first_event"], row["first_event"] + row["num_events"]
        if rank.strings[int(events["device"][first])] == "cpu":
            continue  # there the profiler counts its own threads only
        totals = row["initial_bytes"] + np.cumsum(signed[first:end])
        assert totals.tolist() == events["total_bytes"][first:end].tolist()


@pytest.mark.parametrize("name", ["resnet50-train-v100-2021-format", "vit-inference-h100", "vit-inference-mi300x"])
def test_times_of_a_profile_are_exact_to_the_nanosecond(shared_data: Path, name: str) -> None:
    path = shared_data / "kineto" / f"{name}.json.gz"
    document = json.loads(gzip.decompress(path.read_bytes()), parse_float=str)
    base = document.get("baseTimeNanoseconds", 0)
    activities = [one for one in document["traceEvents"] if one["ph"] == "X"]
    kernels = read_trace(path).ranks[0].table("kernels")
    assert kernels["start_ns"].tolist() == [base + decimal_ns(one["ts"]) for one in activities]
    assert kernels["duration_ns"].tolist() == [decimal_ns(one["dur"]) for one in activities]


def decimal_ns(text: str | int) -> int:
    """Return the text of a number of microseconds as nanoseconds, by its digits."""
    whole, _, fraction = str(text).partition(".")
    return int(whole) * 1000 + int((fraction + "000")[:3])


def test_steps_of_a_profile_are_those_on_the_cpu_side(shared_data: Path) -> None:
    steps: IntArray = read_trace(profile_of(shared_data, WITH_MEMORY_EVENTS[0])[0]).ranks[0].table("steps")["step"]
    assert steps.tolist() == [5, 6, 7, 8, 9, 10]
    assert read_trace(profile_of(shared_data, "vit-inference-h100")[0]).ranks[0].table("steps")["step"].tolist() == [6]


def test_two_ranks_of_one_run_are_one_trace_that_names_the_missing(shared_data: Path) -> None:
    paths = [profile_of(shared_data, f"train-128-ranks-sampled-rank{rank}")[0] for rank in (1, 0)]
    trace = read_trace(paths)
    assert [rank.rank for rank in trace.ranks] == [0, 1]
    (missing,) = (warning for warning in trace.warnings if warning.slug == "missing-ranks")
    assert missing.count == 126
