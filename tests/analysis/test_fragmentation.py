"""Fragmentation: pools add up to what is reserved, growth is as recorded, and the blocks in the way are named."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from memtrace.allocator.pressure import moments_after, pressure_of
from memtrace.allocator.whatif import Change, read_recording, what_if
from memtrace.analysis.device.device_history import DeviceHistory, build_history
from memtrace.analysis.device.pools import final_pools
from memtrace.analysis.diagnosis.fragmentation import find_fragmentation
from memtrace.analysis.diagnosis.fragmentation_findings import fragmentation_findings
from memtrace.analysis.diagnosis.oom import find_oom
from memtrace.analysis.report import analyze
from memtrace.analysis.results.report import FragmentationResult
from memtrace.report.json.report import report_document
from memtrace.report.terminal.report import render_text
from memtrace.schema.names import Action
from memtrace.store.reading.read import read_trace
from memtrace.store.trace import RankTrace
from tests.analysis.small_trace import block, event_rows, rank_trace, segment, step, trace, window

MIB = 2**20
EXACT = (
    "gpt-train-3-steps-from-process-start-batch100",
    "gpt-forwards-late-history",
    "gpt-inference-from-process-start",
)
"""Recordings that the model of the allocator reproduces."""
WITHOUT_HISTORY = (
    "segments-only-fragmented",
    "segments-only-at-oom-torch-2.1",
    "segments-only-three-pools-pending-free",
)

KEPT_LINE, TEMPORARY_LINE = 19, 21


def of(history: DeviceHistory) -> FragmentationResult:
    found = find_fragmentation(history)
    assert found is not None
    return found


def history_of(rank: RankTrace, device: str = "cpu") -> DeviceHistory:
    return build_history(rank, device, owns_marks=True)


def chunks(num: int, *, temporary: int, kept: int, in_buffer: bool = False) -> RankTrace:
    """Chunk by chunk a temporary, then something that is kept, then the temporary is freed: what is kept cuts it.

    With `in_buffer` everything that is kept is one buffer, made first, and each result a copy in it: nothing is cut.
    """
    events: list[tuple[str, int | None, int]] = []
    stacks: list[int] = []

    def add(action: str, address: int, size: int, stack: int) -> None:
        events.append((action, address, size))
        stacks.append(stack)

    if in_buffer:
        add("alloc", 999, num * kept, 0)
    for at in range(num):
        # Two temporaries live at once, so that each chunk needs another one while the last is still there.
        add("alloc", 2 * at, temporary, 1)
        add("alloc", 2 * at + 1, temporary, 1)
        add("free_completed", 2 * at, temporary, 1)
        add("alloc", 1000 + at, kept, 0)
        add("free_completed", 2 * at + 1, temporary, 1)
        if in_buffer:
            add("free_completed", 1000 + at, kept, 0)
    rows = event_rows(events)
    for row, stack in zip(rows, stacks, strict=True):
        row["stack"] = stack
    frames = [{"file": "encode.py", "line": line, "function": "encode"} for line in (KEPT_LINE, TEMPORARY_LINE)]
    return rank_trace(
        events=rows,
        windows=[window(0, len(events), initial=0)],
        steps=[step(0, 0, 5), step(1, 5, 10 * len(events) + 5)],
        frames=frames,
        stacks=[{"frame": 0, "parent": None}, {"frame": 1, "parent": None}],
    )


def test_blocks_that_stay_between_temporaries_are_named_with_what_they_cost() -> None:
    num, temporary, kept = 10, 12 * MIB, 7 * MIB
    history = history_of(chunks(num, temporary=temporary, kept=kept))
    found = of(history)
    assert found.is_model
    assert found.where is not None
    assert found.requested_at is not None
    assert (found.where["line"], found.requested_at["line"]) == (KEPT_LINE, TEMPORARY_LINE)
    # Two temporaries at first and one more a chunk, since what is kept cuts one of the two.
    assert found.max_reserved_bytes == (num + 1) * temporary
    assert found.num_growths == num + 1
    (large,) = found.moments[0].pools
    assert (large.pool, large.reserved_bytes) == ("large", (num + 1) * temporary)
    # Each that is cut leaves this much, and from then on it counts that as much was free in pieces.
    rest = temporary - kept
    cut_before = [max(growth - 1, 0) for growth in range(num + 1)]
    assert found.num_fragmented_growths == sum(cut * rest >= temporary for cut in cut_before)
    (finding,) = fragmentation_findings(history, found, None)
    assert (finding.slug, finding.severity, finding.where) == ("fragmentation", "warning", found.where)
    assert "On a GPU" in finding.title
    assert finding.saves_bytes == found.wasted_bytes
    assert found.wasted_bytes is not None
    assert found.wasted_bytes <= (num + 1) * temporary - (num * kept + temporary)


def test_the_same_results_in_one_buffer_cut_nothing() -> None:
    history = history_of(chunks(10, temporary=12 * MIB, kept=7 * MIB, in_buffer=True))
    found = of(history)
    assert fragmentation_findings(history, found, None) == ()
    assert found.num_fragmented_growths == 0
    assert found.wasted_bytes == 0


def test_report_holds_it_and_the_document_as_well() -> None:
    report = analyze(trace(chunks(10, temporary=12 * MIB, kept=7 * MIB)))
    assert report.findings[0].slug == "fragmentation"
    fragmentation = report.ranks[0].fragmentation
    assert fragmentation is not None
    document: dict[str, Any] = report_document(report)["ranks"][0]["fragmentation"]
    assert document["max_reserved_bytes"] == fragmentation.max_reserved_bytes
    assert [one["name"] for one in document["moments"]] == ["largest reserved", "end of step", "end"]
    assert document["moments"][0]["pools"][0]["internal_bytes"] == 0


def test_nothing_to_tell_without_memory_or_events() -> None:
    assert find_fragmentation(history_of(rank_trace())) is None
    lone = rank_trace(events=event_rows([("free_completed", 1, 5)]), windows=[window(0, 1)])
    assert find_fragmentation(history_of(lone)) is None


def test_final_segments_tell_pools_apart_and_what_is_split() -> None:
    rank = rank_trace(
        source="snapshot",
        segments=[
            segment(0, 100, 60),
            segment(200, 50, 0),
            {**segment(300, 40, 30), "segment_type": "small"},
            {**segment(400, 30, 30), "pool_id": "1,0"},
        ],
        blocks=[
            {**block(0, 0, 50, "active_allocated"), "requested_bytes": 45},
            block(0, 50, 10, "active_pending_free"),
            block(0, 60, 40, "inactive"),
            block(1, 200, 50, "inactive"),
            block(2, 300, 30, "active_allocated"),
            block(2, 330, 10, "inactive"),
            block(3, 400, 30, "active_allocated"),
        ],
    )
    (end,) = of(history_of(rank, "cuda:0")).moments
    pools = {pool.pool: pool for pool in end.pools}
    assert list(pools) == ["large", "small", "large of 1,0"]
    large = pools["large"]
    assert (large.num_segments, large.reserved_bytes, large.allocated_bytes, large.pending_bytes) == (2, 150, 50, 10)
    assert (large.free_bytes, large.split_bytes, large.largest_free_block_bytes) == (90, 40, 50)
    assert (large.internal_bytes, large.external_bytes) == (5, 40)
    assert pools["large of 1,0"].external_bytes == 0
    text = render_text(analyze(trace(rank)))
    row = next(line for line in text.splitlines() if "end, large " in line)
    assert re.split(r"  +", row.strip())[1:] == ["150 B", "50 B", "5 B", "90 B", "40 B", "50 B"]
    assert "end, large of 1,0" in text


def test_what_was_asked_for_is_not_known_where_the_snapshot_does_not_say() -> None:
    blocks = [{**block(0, 0, 60, "active_allocated"), "requested_bytes": None}, block(0, 60, 40, "inactive")]
    rank = rank_trace(source="snapshot", segments=[segment(0, 100, 60)], blocks=blocks)
    (pool,) = of(history_of(rank, "cuda:0")).moments[0].pools
    assert (pool.requested_bytes, pool.internal_bytes, pool.allocated_bytes) == (None, None, 60)


@pytest.mark.parametrize("name", WITHOUT_HISTORY)
def test_real_snapshots_without_history_add_up(shared_data: Path, name: str) -> None:
    rank = read_trace((shared_data / "snapshots" / f"{name}.pickle",)).ranks[0]
    segments = rank.table("segments")
    found = of(history_of(rank, "cuda:0"))
    assert (found.num_growths, found.wasted_bytes) == (None, None)
    pools = found.moments[0].pools
    assert sum(pool.reserved_bytes for pool in pools) == segments["total_bytes"].sum()
    assert sum(pool.allocated_bytes for pool in pools) == segments["allocated_bytes"].sum()
    active = sum(pool.allocated_bytes + pool.pending_bytes for pool in pools)
    assert active == segments["active_bytes"].sum()
    for pool in pools:
        assert pool.reserved_bytes == pool.allocated_bytes + pool.pending_bytes + pool.free_bytes
        assert 0 <= pool.largest_free_block_bytes <= pool.free_bytes
        assert 0 <= pool.split_bytes <= pool.free_bytes
    if "three-pools" in name:
        assert len({pool.pool.partition(" of ")[2] for pool in pools}) == 3


@pytest.mark.parametrize("name", EXACT)
def test_real_histories_grow_in_the_model_as_they_were_recorded(shared_data: Path, name: str) -> None:
    rank = read_trace((shared_data / "snapshots" / f"{name}.pickle",)).ranks[0]
    history = history_of(rank, "cuda:0")
    levels, recording = history.levels, read_recording(rank, "cuda:0")
    assert levels.reserved is not None
    assert levels.allocated is not None
    pressure = pressure_of(recording)
    takes = history.moments.is_action(rank, Action.SEGMENT_ALLOC)
    assert len(pressure.growths) == np.count_nonzero(takes)
    assert pressure.max_reserved_bytes == levels.reserved.max()
    assert pressure.peak_allocated_bytes == levels.allocated.max()
    at = np.linspace(1, history.last_moment, 5).astype(np.int64)
    moments = moments_after(recording, [int(history.moments.event[one]) for one in at])
    for one, moment in zip(at.tolist(), moments, strict=True):
        assert moment.state.allocated_bytes == levels.allocated[one]
    final = final_pools(rank, "cuda:0")
    assert moments[-1].state.reserved_bytes == sum(pool.reserved_bytes for pool in final)


def test_frees_of_blocks_that_a_damaged_start_does_not_have_change_nothing(shared_data: Path) -> None:
    rank = read_trace((shared_data / "snapshots" / "gpt-train-windows-frameless-backward.pickle",)).ranks[0]
    recording = read_recording(rank, "cuda:0")
    assert any(number < recording.requests.num_initial for number in recording.requests.number)
    elsewhere = replace(recording.requests, address=recording.requests.address + 1)
    pressure = pressure_of(replace(recording, requests=elsewhere))
    assert pressure.peak_allocated_bytes >= pressure_of(recording).peak_allocated_bytes


def requests() -> st.SearchStrategy[list[tuple[int, int]]]:
    """Pairs of a size and how many later requests it outlives."""
    sizes = st.one_of(st.integers(1, 4 * MIB), st.integers(8 * MIB, 40 * MIB))
    return st.lists(st.tuples(sizes, st.integers(0, 6)), min_size=1, max_size=30)


def in_turn(asked: list[tuple[int, int]]) -> Iterator[tuple[str, int | None, int]]:
    for at, (size, _) in enumerate(asked):
        yield "alloc", at, size
        for before in range(at + 1):
            if before + asked[before][1] == at:
                yield "free_completed", before, asked[before][0]


@given(requests())
def test_growth_is_that_of_a_what_if_and_bounds_what_is_wasted(asked: list[tuple[int, int]]) -> None:
    events = list(in_turn(asked))
    rank = rank_trace(events=event_rows(events), windows=[window(0, len(events), initial=0)])
    recording = read_recording(rank, "cpu", as_cuda=True)
    row = what_if(recording, [Change(name="as it is")]).rows[-1]
    pressure = pressure_of(recording)
    assert len(pressure.growths) == row.num_device_mallocs
    assert pressure.max_reserved_bytes == row.max_reserved_bytes
    assert pressure.peak_allocated_bytes == row.peak_allocated_bytes
    found = of(history_of(rank))
    assert found.wasted_bytes is not None
    assert 0 <= found.wasted_bytes <= row.max_reserved_bytes - row.peak_allocated_bytes
    for moment in found.moments:
        for pool in moment.pools:
            assert pool.reserved_bytes == pool.allocated_bytes + pool.pending_bytes + pool.free_bytes
            assert pool.external_bytes >= 0
            assert (pool.internal_bytes or 0) >= 0
    largest = found.moments[0]
    assert sum(pool.reserved_bytes for pool in largest.pools) == row.max_reserved_bytes


def test_an_oom_by_fragmentation_is_an_error() -> None:
    history = history_of(chunks(10, temporary=12 * MIB, kept=7 * MIB))
    rows = event_rows([("alloc", 1, 100), ("oom", None, 200)], device="cuda:0")
    rows[1]["device_free_bytes"] = 180
    failed = rank_trace(
        source="snapshot",
        events=rows,
        windows=[window(0, 2)],
        segments=[segment(1, 150, 100)],
        blocks=[block(0, 1, 100, "active_allocated"), block(0, 101, 50, "inactive")],
    )
    oom = find_oom(history_of(failed, "cuda:0"))
    assert oom is not None
    assert oom.cause == "fragmentation"
    (finding,) = fragmentation_findings(history, of(history), oom)
    assert finding.severity == "error"
