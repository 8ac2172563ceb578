"""The map of all allocations: the same bytes as the levels, every block inside its segment, none over another."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from memtrace.analysis.device.byte_levels import running_level
from memtrace.analysis.device.device_history import build_history
from memtrace.analysis.device.stacks import frames_of
from memtrace.analysis.report import analyze
from memtrace.analysis.results.report import AllocationMap
from memtrace.store.reading.read import read_trace
from tests.analysis.small_trace import event_rows, initial_block, owner, rank_trace, scope, step, trace, window

REAL = (
    "gpt-train-3-steps-from-process-start-batch200",
    "gpt-medium-512-train-warm-step-unsplit-live-blocks",
    "gpt-train-windows-frameless-backward",
    "gpt-forwards-late-history",
)


def small_map() -> AllocationMap:
    """Return the map of four allocations: from before, with an owner in a module, short, and one that stays."""
    events = [
        ("alloc", 0x5000, 100),
        ("alloc", 0x9000000, 30),
        ("free_completed", 0x9000000, 30),
        ("free_completed", 0x1000, 64),
        ("alloc", 0x1000, 8),
    ]
    rank = rank_trace(
        events=event_rows(events),
        windows=[window(0, 5, initial=70)],
        initial_blocks=[initial_block(0x1000, 64)],
        steps=[step(1, 5, 60)],
        scopes=[scope("mlp", 8, 12)],
        owners=[owner(15, 0x5000, 100, "parameter")],
    )
    found = analyze(trace(rank), with_map=True).ranks[0].allocation_map
    assert found is not None
    return found


def test_rows_are_in_the_order_of_a_stack() -> None:
    found = small_map()
    assert found.start.tolist() == [0, 1, 2, 5]
    assert found.in_use_end.tolist() == [4, 6, 3, 6]
    assert found.size_bytes.tolist() == [64, 100, 30, 8]
    assert found.is_initial.tolist() == [True, False, False, False]


def test_each_row_says_what_is_known_of_it() -> None:
    found = small_map()
    assert [found.categories[one] for one in found.category] == ["unknown", "parameter", "unknown", "unknown"]
    assert found.module.tolist() == [-1, 0, -1, -1]
    assert found.modules == ("mlp",)
    assert found.owners == (("x", None, None),)
    assert found.owner.tolist() == [-1, 0, -1, -1]
    assert found.step.tolist() == [-1, 1, 1, 1]
    assert found.base_bytes.tolist() == [70 - 64]


def test_empty_address_space_is_taken_out_of_the_axis() -> None:
    found = small_map()
    # 0x5000 is near 0x1000 and keeps its distance; 0x9000000 is far away.
    assert found.place_bytes.tolist() == [0, 0x4000, 0x4000 + 100, 0]
    assert [one.address for one in found.ranges] == [0x1000, 0x9000000]


def test_a_step_whose_beginning_is_not_known_is_no_stretch_of_the_map() -> None:
    steps = [step(1, 5, 15), step(2, 15, None) | {"start_ns": None}]
    rank = rank_trace(
        events=event_rows([("alloc", 1, 1), ("alloc", 2, 1)]), windows=[window(0, 2, initial=0)], steps=steps
    )
    found = analyze(trace(rank), with_map=True).ranks[0].allocation_map
    assert found is not None
    assert [span[3] for span in found.spans if span[2] == "step"] == ["1"]


def test_there_is_no_map_unless_asked_for() -> None:
    rank = rank_trace(events=event_rows([("alloc", 1, 1)]), windows=[window(0, 1, initial=0)])
    assert analyze(trace(rank)).ranks[0].allocation_map is None


def real_map(shared_data: Path, name: str) -> AllocationMap:
    """Return the map of a real recording."""
    report = analyze(read_trace(shared_data / "snapshots" / f"{name}.pickle"), with_map=True)
    found = report.ranks[0].allocation_map
    assert found is not None
    return found


@pytest.mark.parametrize("name", REAL)
def test_a_real_map_adds_up_to_the_levels(shared_data: Path, name: str) -> None:
    found = real_map(shared_data, name)
    history = build_history(
        read_trace(shared_data / "snapshots" / f"{name}.pickle").ranks[0], "cuda:0", owns_marks=True
    )
    level = running_level(found.start, found.in_use_end, found.size_bytes, found.num_moments)
    assert np.array_equal(level + found.base_bytes[0], history.levels.requested)
    assert found.block_bytes is not None
    if history.levels.allocated is not None:
        blocks = running_level(found.start, found.in_use_end, found.block_bytes, found.num_moments)
        assert np.array_equal(blocks, history.levels.allocated)
    segments = found.segments
    reserved = running_level(segments.start, segments.end, segments.size_bytes, found.num_moments)
    assert history.levels.reserved is not None
    assert np.array_equal(reserved, history.levels.reserved)


@pytest.mark.parametrize("name", REAL)
@pytest.mark.parametrize("share", [0.0, 0.3, 0.61, 1.0])
def test_blocks_of_a_real_map_lie_in_segments_and_apart(shared_data: Path, name: str, share: float) -> None:
    found = real_map(shared_data, name)
    assert found.block_bytes is not None
    moment = int((found.num_moments - 1) * share)
    live = np.flatnonzero((found.start <= moment) & (found.end > moment))
    order = live[np.argsort(found.place_bytes[live])]
    first, last = found.place_bytes[order], found.place_bytes[order] + found.block_bytes[order]
    assert np.all(first[1:] >= last[:-1])
    segments = found.segments
    there = np.flatnonzero((segments.start <= moment) & (segments.end > moment))
    at = np.searchsorted(segments.place_bytes[there], first, side="right") - 1
    assert np.all(at >= 0)
    assert np.all(last <= segments.place_bytes[there][at] + segments.size_bytes[there][at])


def test_stacks_keep_their_frames(shared_data: Path) -> None:
    name = REAL[0]
    found = real_map(shared_data, name)
    rank = read_trace(shared_data / "snapshots" / f"{name}.pickle").ranks[0]
    history = build_history(rank, "cuda:0", owns_marks=True)
    order = np.lexsort((history.lifetimes.address, history.lifetimes.start))
    for row in range(0, len(found.start), 97):
        frames, one = [], int(found.stack[row])
        while one >= 0:
            frames.append(found.frames[found.stack_frame[one]])
            one = int(found.stack_parent[one])
        assert tuple(frames) == frames_of(rank, int(history.lifetimes.stack[order[row]]))


@pytest.mark.parametrize("name", ["segments-only-fragmented", "segments-only-three-pools-pending-free"])
def test_without_history_the_final_blocks_are_mapped(shared_data: Path, name: str) -> None:
    found = real_map(shared_data, name)
    rank = read_trace(shared_data / "snapshots" / f"{name}.pickle").ranks[0]
    segments = rank.table("segments")
    assert found.block_bytes is not None
    in_use = found.in_use_end > found.start
    assert int(found.block_bytes[in_use].sum()) == int(segments["allocated_bytes"].sum())
    assert int(found.block_bytes.sum()) == int(segments["active_bytes"].sum())
    assert int(found.segments.size_bytes.sum()) == int(segments["total_bytes"].sum())
