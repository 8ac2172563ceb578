"""Gradients that are in buckets as well, or in one flat copy, are told; views of buckets and parts of them are not."""

from __future__ import annotations

from typing import Any

import pytest

from memtrace.analysis.advice.case import Case
from memtrace.analysis.device.device_history import build_history
from memtrace.analysis.faults.gradient_copies import buckets_beside_gradients, flat_copy_of_gradients
from memtrace.store.trace import RankTrace
from tests.analysis.small_replicas import bucket
from tests.analysis.small_trace import event_rows, owner, phase, rank_trace, step, window

WEIGHTS, GRADIENTS = [400, 300, 200, 100], [400, 300, 200, 100]
TOTAL = sum(GRADIENTS)


def run(
    *others: int, communication: bool = False, are_views: bool = False, made_in: str = "other", **more: Any
) -> RankTrace:
    """Return a run in whose step gradients are made, and then other things beside them."""
    sizes = [*WEIGHTS, *GRADIENTS, *others]
    events = [("alloc", address, size) for address, size in enumerate(sizes, start=1)]
    events += [("free_completed", address, size) for address, size in enumerate(sizes, start=1) if address > 4]
    before, during = 10 * (len(WEIGHTS) + len(GRADIENTS)) + 1, 10 * len(sizes) + 1
    owners = [owner(45, at, size, "parameter") for at, size in enumerate(WEIGHTS, start=1)]
    whole = 2 if are_views else 1
    owners += [
        {**owner(during, at, size, "gradient"), "size_bytes": whole * size}
        for at, size in enumerate(GRADIENTS, start=1 + len(WEIGHTS))
    ]
    if communication:
        owners += [owner(during, at, size, "communication") for at, size in enumerate(others, start=9)]
    tables = {
        "events": event_rows(events),
        "windows": [window(0, len(events), initial=0)],
        "steps": [step(0, 0, 45), step(1, 45, 10 * len(events) + 5)],
        "phases": [phase("backward", 1, 46, before), phase(made_in, 1, before + 1, during)],
        "owners": owners,
    }
    return rank_trace(**(tables | more))


def case_of(rank: RankTrace) -> Case:
    return Case(build_history(rank, "cpu", owns_marks=False))


def test_gradients_beside_their_buckets_could_be_views_of_them() -> None:
    buckets = [bucket(0, 600), bucket(1, 400)]
    found = buckets_beside_gradients(case_of(run(600, 400, communication=True, buckets=buckets)))
    assert found is not None
    assert found.saves_bytes == TOTAL
    assert found.new_peak_bytes == sum(WEIGHTS) + TOTAL
    assert found.evidence["num_buckets"] == 2
    assert buckets_beside_gradients(case_of(run(600, 400, communication=True))) is None
    views = run(600, 400, communication=True, are_views=True, buckets=buckets)
    assert buckets_beside_gradients(case_of(views)) is None


@pytest.mark.parametrize(("size", "width"), [(TOTAL, 1), (TOTAL // 2, 2), (TOTAL + 10, 1)])
def test_one_buffer_of_all_gradients_is_a_flat_copy(size: int, width: int) -> None:
    found = flat_copy_of_gradients(case_of(run(size)))
    assert found is not None
    assert found.saves_bytes == size
    assert found.new_peak_bytes == sum(WEIGHTS) + TOTAL
    assert found.evidence["gradient_bytes"] // width == pytest.approx(size, rel=0.02)


@pytest.mark.parametrize(
    "rank",
    [
        run(TOTAL - 100),
        run(TOTAL, communication=True),
        run(TOTAL, made_in="optimizer"),
        run(TOTAL, made_in="forward"),
        run(*GRADIENTS),
    ],
    ids=["not all", "a bucket", "an optimizer's", "a forward's", "one each"],
)
def test_what_is_no_flat_copy_is_not_told(rank: RankTrace) -> None:
    assert flat_copy_of_gradients(case_of(rank)) is None
