"""A rank that cannot be analysed is left out with a warning that names it; the others are reported."""

from __future__ import annotations

from typing import Any

import pytest

from memtrace.analysis import report
from memtrace.analysis.asked import what_ifs
from memtrace.analysis.each_rank import of_each_rank
from memtrace.store.trace import RankTrace
from tests.builders import rank_trace, trace_of


@pytest.fixture
def damaged(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the analysis of rank 1 end in an error."""
    real = report.analyze_rank

    def analyze_rank(rank: RankTrace, *args: Any, **options: Any) -> Any:
        if rank.rank == 1:
            raise ValueError("zero-size array")
        return real(rank, *args, **options)

    monkeypatch.setattr(report, "analyze_rank", analyze_rank)


def rank(number: int) -> RankTrace:
    return rank_trace({"rank": number}, events=[{"action": "alloc", "address": 512, "size_bytes": 512}])


@pytest.mark.usefixtures("damaged")
def test_damaged_rank_is_named_and_the_others_are_reported() -> None:
    result = report.analyze(trace_of(rank(0), rank(1), rank(2)))
    assert [one.rank for one in result.ranks] == [0, 2]
    assert any("rank 1 could not be analysed" in one.message for one in result.warnings)


@pytest.mark.usefixtures("damaged")
def test_damaged_rank_alone_is_an_error() -> None:
    with pytest.raises(ValueError, match="zero-size"):
        report.analyze(trace_of(rank(1)))


def odd_rank(one: RankTrace) -> int | None:
    if one.rank == 1:
        raise IndexError("out of bounds")
    return one.rank


def test_any_question_leaves_the_rank_out_and_names_it() -> None:
    found, left_out = of_each_rank(trace_of(rank(0), rank(1), rank(2)), odd_rank)
    assert found == [0, 2]
    (said,) = left_out
    assert said.message.startswith("rank 1 could not be analysed (IndexError")


def test_what_ifs_leave_the_rank_out_and_name_it(monkeypatch: pytest.MonkeyPatch) -> None:
    real = what_ifs.read_recording

    def read_recording(one: RankTrace, *args: Any, **options: Any) -> Any:
        odd_rank(one)
        return real(one, *args, **options)

    monkeypatch.setattr(what_ifs, "read_recording", read_recording)
    asked = what_ifs.Asked(as_cuda=True)
    results, (said,) = what_ifs.try_what_ifs(trace_of(rank(0), rank(1), rank(2)), asked)
    assert [one.rank for one in results] == [0, 2]
    assert said.message.startswith("rank 1 could not be analysed (IndexError")
