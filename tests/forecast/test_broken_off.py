"""A predicted run on a GPU that is too small ends where a recording would: at the request that fails."""

from __future__ import annotations

from typing import Any

import numpy as np

from memtrace.analysis.report import analyze
from memtrace.forecast.prediction.broken_off import broken_off
from memtrace.forecast.prediction.placed import place
from memtrace.schema.names import Action
from memtrace.store.columns import NULL
from memtrace.store.trace import RankTrace
from tests.analysis.small_trace import event_rows, owner, phase, rank_trace, saved, scope, step, trace, window

MIB = 1024**2
DEVICE = "cuda:0"
WEIGHT, INSIDE, LARGE, LATE = 1 << 40, 2 << 40, 3 << 40, 4 << 40
CAPACITY = 100 * MIB


def predicted() -> RankTrace:
    """Return a run of two steps, of which the first asks for 80 MiB while 40 are held."""
    events = event_rows(
        [
            ("alloc", WEIGHT, 20 * MIB),
            ("alloc", INSIDE, 20 * MIB),
            ("alloc", LARGE, 80 * MIB),
            ("free_completed", LARGE, 80 * MIB),
            ("alloc", LATE, 1 * MIB),
            ("free_completed", LATE, 1 * MIB),
        ],
        device=DEVICE,
    )
    weight, inside = owner(45, WEIGHT, 20 * MIB, "parameter"), owner(45, INSIDE, 20 * MIB, "gradient")
    late = owner(65, LATE, 1 * MIB, "gradient") | {"step": 2}
    return rank_trace(
        source="predicted",
        events=events,
        windows=[window(0, 4), window(4, 2, continues=True)],
        steps=[step(0, 0, 15), step(1, 15, 45), step(2, 45, 65)],
        phases=[phase("forward", 1, 16, 40), phase("backward", 1, 40, 44), phase("forward", 2, 46, 64)],
        scopes=[scope("whole", 16, 40), scope("whole.block", 21, 35), scope("whole.after", 36, 39)],
        owners=[one | {"device": DEVICE} for one in (weight, inside, late)],
        saved=[saved(41, INSIDE, 20 * MIB, device=DEVICE)],
        header={"devices": [{"name": DEVICE, "kind": "small", "capacity_bytes": CAPACITY}]},
    )


def ended() -> RankTrace:
    placed = place(predicted(), DEVICE, capacity_bytes=CAPACITY)
    assert placed.failed is not None
    return broken_off(placed.rank, placed.failed.time_ns)


def rows(rank: RankTrace, table: str, *columns: str) -> list[tuple[Any, ...]]:
    return list(zip(*(rank.table(table)[name].tolist() for name in columns), strict=True))


def test_the_report_says_what_failed_and_where() -> None:
    (report,) = analyze(trace(ended())).ranks
    oom = report.oom
    assert oom is not None
    assert (oom.step, oom.phase, oom.module) == (1, "forward", "whole.block")
    assert (oom.request_bytes, oom.predicted) == (80 * MIB, False)
    assert oom.free_bytes == CAPACITY - 2 * 20 * MIB
    assert oom.in_use_bytes == 2 * 20 * MIB


def test_nothing_comes_after_the_failure() -> None:
    rank = ended()
    actions = [rank.text(one) for one in rank.table("events")["action"].tolist()]
    assert actions[-1] == Action.OOM.value
    assert actions.count(Action.ALLOC.value) == 2
    assert rows(rank, "steps", "step", "end_ns") == [(0, 15), (1, NULL)]
    assert rows(rank, "phases", "start_ns", "end_ns") == [(16, NULL)]
    assert rows(rank, "scopes", "start_ns", "end_ns") == [(16, NULL), (21, NULL)]
    assert len(rank.table("saved")) == 0
    assert rows(rank, "windows", "first_event", "num_events") == [(0, len(actions))]
    assert rank.header["end_ns"] == 30


def test_what_the_failing_step_holds_is_owned_at_the_failure() -> None:
    rank = ended()
    owners = rank.table("owners")
    blocks = rank.table("blocks")
    assert {rank.text(one) for one in owners["category"].tolist()} == {"parameter", "gradient"}
    assert set(owners["time_ns"].tolist()) == {30}
    assert np.isin(owners["address"], blocks["address"]).all()
