"""What a page holds of many ranks: small timelines that lose no peak, details of as many as fit, time in parts."""

from __future__ import annotations

import base64
from array import array
from dataclasses import replace
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from memtrace.analysis.results.ranks import RanksResult
from memtrace.analysis.results.report import RankReport, Report, Timeline
from memtrace.report.drawing.step_time_rows import throughput_sentences
from memtrace.report.page.data import payload
from memtrace.report.page.data.mini_timelines import NUM_COLUMNS, MiniTimelines
from memtrace.report.page.data.payload import report_payload
from memtrace.report.page.data.ranks import detail_order, main_positions
from tests.fake_report import gpt_rank, ranks_report, snapshot_rank
from tests.timed_reports import rank_with_time, time_alone_report, timed_report

FIRST = gpt_rank(0)


def array_of(page: dict[str, Any], reference: dict[str, int]) -> list[float]:
    """Return the numbers that a reference stands for."""
    return array("d", base64.b64decode(page["arrays"][reference["$array"]])).tolist()


def rank_of(number: int, times: list[int], levels: list[int], gaps: tuple[tuple[int, int], ...] = ()) -> RankReport:
    """Return a rank with a timeline and without steps."""
    values = np.array(levels, np.int64)
    timeline = Timeline(
        event=np.arange(len(times), dtype=np.int64),
        time_ns=np.array(times, np.int64),
        by_category={"unknown": values},
        requested_bytes=values,
        reserved_bytes=None,
        allocated_bytes=None,
        gaps=gaps,
    )
    return replace(FIRST, rank=number, timeline=timeline, steps=())


TIMELINES = st.lists(
    st.lists(st.tuples(st.integers(0, 10**7), st.integers(0, 2**50)), min_size=1, max_size=40), min_size=1, max_size=4
)


@given(TIMELINES)
def test_small_timelines_keep_every_peak_and_invent_no_level(drawn: list[list[tuple[int, int]]]) -> None:
    ranks = []
    for number, points in enumerate(drawn):
        times = sorted(time for time, _ in points)
        ranks.append(rank_of(number, times, [level for _, level in points]))
    minis = MiniTimelines.of_ranks(ranks)
    assert minis.mark is None
    for rank, column in zip(ranks, minis.columns, strict=True):
        assert column is not None
        assert rank.timeline is not None
        levels = set(rank.timeline.requested_bytes.tolist())
        known = [level for level in column if level == level]
        assert len(column) == NUM_COLUMNS
        assert max(known) == max(levels)
        assert set(known) <= levels
    assert minis.top_bytes == max(int(rank.timeline.requested_bytes.max()) for rank in ranks if rank.timeline)


def test_clocks_are_aligned_by_the_first_step_of_all() -> None:
    # Rank 1 runs on a host whose clock is an hour ahead: nothing of that is left.
    hour = 3600 * 10**9
    assert FIRST.timeline is not None
    late = replace(
        FIRST,
        rank=1,
        timeline=replace(FIRST.timeline, time_ns=FIRST.timeline.time_ns + hour, gaps=()),
        steps=tuple(
            replace(step, start_ns=None if step.start_ns is None else step.start_ns + hour) for step in FIRST.steps
        ),
    )
    minis = MiniTimelines.of_ranks([replace(FIRST, timeline=replace(FIRST.timeline, gaps=())), late])
    assert minis.columns[0] == minis.columns[1]
    assert minis.span_ns == int(FIRST.timeline.time_ns[-1] - FIRST.timeline.time_ns[0])
    assert "start of step 1" in minis.aligned
    before = next(step.start_ns for step in FIRST.steps if step.step == 1) or 0
    share = (before - int(FIRST.timeline.time_ns[0])) / minis.span_ns
    assert minis.mark == pytest.approx(share, abs=0.001)


def test_what_was_not_recorded_has_no_level() -> None:
    minis = MiniTimelines.of_ranks(
        [rank_of(0, [0, 400_000, 999_999], [1, 2, 3], ((400_000, 999_999),)), snapshot_rank(FIRST)]
    )
    column = minis.columns[0]
    assert column is not None
    assert column[:39] == [1.0] * 39
    assert all(level != level for level in column[45:99])
    assert minis.columns[1] is None


def test_small_timelines_of_512_ranks_are_small() -> None:
    ranks = tuple(
        replace(FIRST, rank=number, facts={"host": f"node-{number // 8:03d}.cluster"}) for number in range(512)
    )
    page = report_payload(replace(ranks_report(2), ranks=ranks), version="0")
    used = [page["arrays"][cell["mini"]["$array"]] for cell in page["ranked"]["cells"]]
    assert len(orjson.dumps(page["ranked"])) + sum(map(len, used)) < 2_000_000
    assert all(len(array_of(page, cell["mini"])) == NUM_COLUMNS for cell in page["ranked"]["cells"][:3])
    whole = len(orjson.dumps(page))
    assert whole < payload.MAX_DETAIL_CHARS + 512 * 20_000


def test_details_are_those_of_the_main_rank_and_of_what_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    ranks = [replace(FIRST, rank=number) for number in range(6)]
    ranks[4] = replace(ranks[4], complete=False)
    report = replace(ranks_report(2), ranks=tuple(ranks), main_rank=3)
    assert detail_order(report) == [3, 4, 0, 1, 2, 5]
    whole = report_payload(report, version="0")
    assert all(view["left_out"] is None for view in whole["ranks"])
    one = len(orjson.dumps(report_payload(replace(report, ranks=(ranks[3],), main_rank=0), version="0")))
    monkeypatch.setattr(payload, "MAX_DETAIL_CHARS", 2 * one)
    page = report_payload(report, version="0")
    held = [number for number, view in enumerate(page["ranks"]) if view["left_out"] is None]
    assert {3, 4} <= set(held) < set(range(6))
    left = page["ranks"][5]
    assert "memtrace report rank-00005.json.gz --html rank-5.html" in left["left_out"]
    assert left["cards"] == whole["ranks"][5]["cards"]
    monkeypatch.setattr(payload, "MAX_DETAIL_CHARS", 1)
    page = report_payload(report, version="0")
    assert [number for number, view in enumerate(page["ranks"]) if view["left_out"] is None] == [3]


def test_each_rank_is_shown_by_its_gpu() -> None:
    ranks = [replace(FIRST, rank=number, device=device) for number in (1, 0) for device in ("cpu", f"cuda:{number}")]
    assert main_positions(ranks) == [3, 1]
    assert main_positions([replace(FIRST, rank=0, device=device) for device in ("cpu", "cuda:0")]) == [0, 1]
    assert main_positions([replace(FIRST, rank=None), replace(FIRST, rank=None)]) == [0, 1]


def compared(num_missing: int, missing: tuple[int, ...]) -> Report:
    none: dict[str, Any] = {"highest": None, "outliers": (), "schemes": (), "copies": None, "savings": ()}
    many: dict[str, Any] = {"failed": (), "behind": (), "spreads": (), "savings_inferred": False}
    result = RanksResult(world_size=9, ranks=(), num_missing=num_missing, missing=missing, **none, **many)
    return replace(ranks_report(2), ranks_overview=result)


def test_missing_ranks_stand_together() -> None:
    rows = report_payload(compared(9, (2, 3, 5)), version="0")["ranked"]["missing"]
    assert [(row["name"], row["count"], row["before"]) for row in rows] == [
        ("2–3", 2, 2),
        ("5", 1, 5),
        ("6 more", 6, 6),
    ]


def test_one_rank_has_no_view_of_ranks() -> None:
    report = replace(ranks_report(2), ranks=(FIRST,))
    assert report_payload(report, version="0")["ranked"] is None


@pytest.mark.parametrize("report", [timed_report(), time_alone_report()])
def test_parts_of_time_add_up_to_their_window(report: Report) -> None:
    rank = rank_with_time(report)
    page = report_payload(report, version="0")
    view = page["ranks"][report.ranks.index(rank)]["time"]
    for parts in (view["parts"], *(row["parts"] for row in view["rows"])):
        assert sum(part["share"] for part in parts) == pytest.approx(1, abs=1e-5)
    assert [row["label"] for row in view["rows"]] == ["1", "2"]
    assert rank.time_tracks is not None
    for lane, drawn in zip(rank.time_tracks.lanes, view["lanes"]["lanes"], strict=True):
        starts, ends = (array_of(page, drawn[name]) for name in ("starts", "ends"))
        assert sum(ends) - sum(starts) == int((lane.end_ns - lane.start_ns).sum())


def test_steps_tell_how_fast_the_rank_trains() -> None:
    rank = rank_with_time(timed_report())
    assert rank.step_times is not None
    view = report_payload(timed_report(), version="0")["ranks"][0]
    assert view["speed"] == throughput_sentences(rank.step_times)
    assert view["speed"]


def test_lanes_reach_as_far_as_the_axis() -> None:
    report = timed_report()
    rank = rank_with_time(report)
    assert rank.time_tracks is not None
    far = replace(rank.time_tracks.lanes[0], end_ns=rank.time_tracks.lanes[0].end_ns + 10**9)
    early = replace(rank.time_tracks.lanes[1], start_ns=rank.time_tracks.lanes[1].start_ns - 10**9)
    moved = replace(rank, time_tracks=replace(rank.time_tracks, lanes=(far, early)))
    page = report_payload(replace(report, ranks=(moved,)), version="0")
    first, last = page["ranks"][0]["chart"]["extent"]
    assert first < -900_000_000
    assert last > 1_000_000_000
