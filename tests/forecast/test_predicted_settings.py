"""The allocator settings that a program asks for decide how its predicted requests are placed."""

from __future__ import annotations

import random
from typing import Any

import pytest

from memtrace.allocator.settings import LOWEST_ADDRESS, MIB, OLDEST_BLOCK, OLDEST_SEGMENT, settings_of_snapshot
from memtrace.analysis.report import analyze
from memtrace.forecast.gpus import gpu_named
from memtrace.forecast.prediction.allocator_settings import settings_notes, settings_of
from memtrace.forecast.prediction.judge import placed_trace
from memtrace.forecast.prediction.placed import Placed, place
from memtrace.schema.cuda_context import USUAL_CONTEXT
from memtrace.store.trace import RankTrace
from tests.analysis.small_trace import event_rows, rank_trace, step, trace, window
from tests.forecast.predicted_run import predicted_trace

DEVICE = "cuda:0"
FIRST, GAP = 1 << 40, 1 << 32


def predicted(sizes: list[int], **header: Any) -> RankTrace:
    """Return a rank that allocates these sizes, frees a negative one's allocation, and keeps the rest."""
    addresses: dict[int, list[int]] = {}
    events = []
    for at, size in enumerate(sizes):
        if size > 0:
            addresses.setdefault(size, []).append(FIRST + at * GAP)
            events.append(("alloc", addresses[size][-1], size))
        else:
            events.append(("free_completed", addresses[-size].pop(), -size))
    return rank_trace(
        source="predicted",
        events=event_rows(events, device=DEVICE),
        windows=[window(0, len(events), initial=0)],
        steps=[step(0, 0, 10 * len(events) + 5)],
        header={"devices": [{"name": DEVICE, "capacity_bytes": None}], **header},
    )


@pytest.mark.parametrize(
    ("version", "rule"),
    [("2.6.0+cu124", LOWEST_ADDRESS), ("2.12.1", OLDEST_BLOCK), ("2.13.0", OLDEST_SEGMENT), (None, LOWEST_ADDRESS)],
)
def test_of_equal_blocks_the_torch_that_ran_decides_and_the_trace_says_so(version: str | None, rule: str) -> None:
    asked = {"max_split_size": 64 * MIB}
    recorded = predicted_trace(2 * MIB, versions={"torch": version}, allocator_settings=asked)
    assert settings_of(recorded.ranks[0]).equal_sizes == rule
    (rank,) = placed_trace(recorded, gpu_named("a100-40gb"))[0].ranks
    replayed = settings_of_snapshot(rank.header["allocator_settings"])
    assert (replayed.equal_sizes, replayed.max_split_size) == (rule, 64 * MIB)


def placed(sizes: list[int], text: str = "", capacity_bytes: int | None = None, **facts: Any) -> Placed:
    environment = {"PYTORCH_CUDA_ALLOC_CONF": text}
    rank = predicted(sizes, environment=environment, allocator_settings=facts)
    return place(rank, DEVICE, capacity_bytes=capacity_bytes)


def test_sizes_are_rounded_up_between_powers_of_two() -> None:
    # With four divisions from 64 to 128 MiB: steps of 16 MiB.
    assert placed([65 * MIB]).peak_allocated_bytes == 65 * MIB + MIB  # a segment of whole 2 MiB, not split
    assert placed([65 * MIB], "roundup_power2_divisions:4").peak_allocated_bytes == 80 * MIB


def test_large_segments_have_the_size_that_is_asked_for() -> None:
    assert placed([2 * MIB]).max_reserved_bytes == 20 * MIB
    assert placed([2 * MIB], "large_segment_size_mb:40").max_reserved_bytes == 40 * MIB


def test_a_share_of_the_memory_is_one_of_all_of_it() -> None:
    total = 4 * 1024 * MIB
    sizes = [512 * MIB] * 4 + [20 * MIB]
    fits = placed(sizes, capacity_bytes=total - USUAL_CONTEXT.predicted_bytes, per_process_memory_fraction=1.0)
    limited = placed(sizes, capacity_bytes=total - USUAL_CONTEXT.predicted_bytes, per_process_memory_fraction=0.5)
    assert fits.failed is None
    assert limited.failed is not None
    assert limited.failed.size_bytes == 20 * MIB
    assert limited.failed.allocated_bytes == total // 2


def test_expandable_segments_grow_where_others_would_not_fit() -> None:
    # A third of a segment of 60 MiB is in use: the rest of it and 40 MiB more serve 70 MiB only if the segment grows.
    sizes = [60 * MIB, -60 * MIB, 20 * MIB, 70 * MIB]
    plain = placed(sizes, capacity_bytes=100 * MIB)
    assert plain.failed is not None
    assert plain.failed.size_bytes == 70 * MIB
    grown = placed(sizes, "expandable_segments:True", capacity_bytes=100 * MIB)
    assert grown.failed is None
    segments = grown.rank.table("segments")
    assert segments["is_expandable"].all()
    # Large segments are mapped 20 MiB at a time.
    assert int(segments["total_bytes"].sum()) == grown.max_reserved_bytes == 100 * MIB


TEXTS = [
    "",
    "expandable_segments:True",
    "max_split_size_mb:64",
    "roundup_power2_divisions:8",
    "large_segment_size_mb:40",
    "garbage_collection_threshold:0.6,per_process_memory_fraction:0.9",
]


@pytest.mark.parametrize("text", TEXTS)
def test_the_report_reproduces_what_was_placed(text: str) -> None:
    choose = random.Random(7)
    held: list[int] = []
    sizes: list[int] = []
    for _ in range(400):
        if held and choose.random() < 0.45:
            sizes.append(-held.pop(choose.randrange(len(held))))
        else:
            held.append(choose.choice([700, 40_000, 3 * MIB, 9 * MIB, 30 * MIB, 70 * MIB]) + choose.randrange(5000))
            sizes.append(held[-1])
    done = placed(sizes, text)
    (report,) = analyze(trace(done.rank)).ranks
    # The analyzer puts the events through the model on its own, and finds every address again.
    assert report.peak is not None
    assert report.peak.allocated_bytes == done.peak_allocated_bytes
    assert int(done.rank.table("segments")["total_bytes"].sum()) <= done.max_reserved_bytes


def test_settings_are_said() -> None:
    asked = predicted([MIB], environment={"PYTORCH_ALLOC_CONF": "expandable_segments:True"})
    assert [(one.slug, "expandable_segments:True" in one.message) for one in settings_notes(asked)] == [
        ("predicted-settings", True)
    ]
    other = predicted([MIB], environment={"PYTORCH_CUDA_ALLOC_CONF": "backend:cudaMallocAsync"})
    assert "is not modelled" in settings_notes(other)[0].message
    assert settings_notes(predicted([MIB])) == ()
