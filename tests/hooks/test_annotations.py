"""Named ranges become rows when they end, whatever order they end in."""

from __future__ import annotations

from types import SimpleNamespace

from memtrace.hooks.loop.named_ranges import Annotations
from memtrace.hooks.parts.chunk import Row


def test_nested_ranges_end_inner_first() -> None:
    rows: list[Row] = []
    ranges = Annotations(rows.append)
    outer, inner = SimpleNamespace(name="outer"), SimpleNamespace(name="inner")
    for one in (outer, inner):
        ranges.enter(one)
    ranges.leave(inner)
    ranges.leave(outer)
    (first, start_in, end_in, _), (second, start_out, end_out, _) = rows
    assert (first, second) == ("inner", "outer")
    assert start_out <= start_in <= end_in <= end_out


def test_a_range_that_was_never_left_ends_with_the_one_around_it() -> None:
    rows: list[Row] = []
    ranges = Annotations(rows.append)
    outer, lost = SimpleNamespace(name="outer"), SimpleNamespace(name="lost")
    ranges.enter(outer)
    ranges.enter(lost)
    ranges.leave(outer)
    assert [row[0] for row in rows] == ["lost", "outer"]


def test_a_range_that_began_before_the_recording_is_left_out() -> None:
    rows: list[Row] = []
    Annotations(rows.append).leave(SimpleNamespace(name="early", end=None))
    assert rows == []


def test_the_same_range_may_be_entered_again_inside_itself() -> None:
    rows: list[Row] = []
    ranges = Annotations(rows.append)
    again = SimpleNamespace(name="again")
    for call in (ranges.enter, ranges.enter, ranges.leave, ranges.leave):
        call(again)
    assert [row[0] for row in rows] == ["again", "again"]
    assert rows[1][1] <= rows[0][1]
