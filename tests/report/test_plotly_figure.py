"""The memory over time as a plotly figure: the same bytes as the timeline, as levels that hold until the next event."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

import memtrace
from memtrace.analysis.report import analyze
from memtrace.errors import MemtraceError
from memtrace.report.drawing.palette import CATEGORIES
from memtrace.report.exchange.plotly_figure import memory_figure
from memtrace.store.trace import Trace
from memtrace.store.writing.trace import write_trace
from tests.analysis.small_trace import event_rows, owner, rank_trace, trace, window

EVENTS = [("alloc", 0x1000, 64), ("alloc", 0x2000, 36), ("free_completed", 0x2000, 36)]


def run() -> Trace:
    rank = rank_trace(
        events=event_rows(EVENTS),
        windows=[window(0, 3, initial=0)],
        owners=[owner(15, 0x1000, 64, "parameter")],
        header={"rank": 3},
    )
    return trace(rank)


def test_areas_are_the_bytes_of_the_timeline() -> None:
    rank = analyze(run()).ranks[0]
    assert rank.timeline is not None
    figure = memory_figure(rank)
    areas = {one.name: one for one in figure.data if one.stackgroup}
    known = areas[CATEGORIES["parameter"].label]
    assert list(known.y) == rank.timeline.by_category["parameter"].tolist()
    assert sum(sum(one.y) for one in areas.values()) == int(rank.timeline.requested_bytes.sum())
    assert list(known.x) == [(time - rank.timeline.time_ns[0]) / 1e9 for time in rank.timeline.time_ns]
    assert {one.line.shape for one in figure.data} == {"hv"}


def test_a_capacity_is_a_line() -> None:
    rank = analyze(run(), capacity_bytes=128).ranks[0]
    assert [shape.y0 for shape in memory_figure(rank).layout.shapes if shape.y0 == shape.y1] == [128]


def test_a_trace_that_was_read_draws_the_rank_that_is_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "trace.json"
    write_trace(run(), path)
    read = memtrace.read(path)
    assert len(read.figure().data) == len(read.figure(rank=3).data) > 0
    with pytest.raises(MemtraceError, match="no memory of rank 1"):
        read.figure(rank=1)


def test_without_history_there_is_nothing_to_draw() -> None:
    rank = dataclasses.replace(analyze(run()).ranks[0], timeline=None)
    with pytest.raises(MemtraceError, match="no history"):
        memory_figure(rank)
