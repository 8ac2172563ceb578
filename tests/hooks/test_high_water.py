"""Marks of steps: from events, or from a counter that is the program's to reset."""

from __future__ import annotations

from memtrace.hooks.sources.high_water import NO_MARK, HighWaterMark, HighWaterMarks


def test_events_tell_the_most_since_the_last_mark() -> None:
    marks = HighWaterMarks()
    marks.saw(7)
    marks.saw(9)
    marks.saw(8)
    assert marks.take(None) == HighWaterMark(9, None)
    assert marks.take(None) == NO_MARK


def test_a_counter_tells_of_steps_that_go_beyond_all_before() -> None:
    marks = HighWaterMarks()
    said = []
    for peak in (100, 100, 130, 130):
        marks.counter_says(peak)
        said.append(marks.take(None).num_bytes)
    assert said == [100, None, 130, None]


def test_a_counter_that_the_program_resets_tells_the_most_since() -> None:
    marks = HighWaterMarks()
    marks.counter_says(100)
    marks.take(None)
    marks.counter_says(60)
    assert marks.take(None).num_bytes == 60


def test_the_peak_of_the_process_counts_where_it_rises() -> None:
    marks = HighWaterMarks()
    assert [marks.take(rss).host_rss_bytes for rss in (50, 50, 80)] == [50, None, 80]


def test_two_stretches_of_a_step_have_the_larger_mark() -> None:
    assert HighWaterMark(5, None).joined(HighWaterMark(3, 7)) == HighWaterMark(5, 7)
