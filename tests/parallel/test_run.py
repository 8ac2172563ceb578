"""What a report of several files says of those that come to nothing."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from memtrace.analysis import report as analysis_report
from memtrace.errors import TraceReadError, TraceVersionError
from memtrace.parallel.run import report_of
from memtrace.schema.version import TRACE_VERSION
from memtrace.store.trace import RankTrace
from tests.parallel.conftest import NUM_RANKS, damage


def file_of(folder: Path, rank: int) -> Path:
    return folder / f"rank-{rank:05}.json.gz"


def test_a_named_file_that_cannot_be_read_is_a_warning_beside_others_and_an_error_alone(own_ranks: Path) -> None:
    damage(own_ranks, 1)
    notes = own_ranks / "notes.txt"
    notes.write_text("batch size 8")
    report = report_of([file_of(own_ranks, 0), file_of(own_ranks, 1), notes])
    assert [rank.rank for rank in report.ranks] == [0]
    messages = [one.message for one in report.warnings if one.slug == "file-unreadable"]
    # Whoever names a file means it: notes are not passed over in silence.
    assert [message.partition(": ")[0] for message in messages] == [str(file_of(own_ranks, 1)), str(notes)]
    for alone in (file_of(own_ranks, 1), notes):
        with pytest.raises(TraceReadError, match=alone.name):
            report_of([alone])


def test_a_rank_that_analysis_fails_on_does_not_stop_the_rest(ranks: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = analysis_report.analyze_rank

    def analyze_rank(rank: RankTrace, *args: object, **options: object) -> object:
        if rank.rank == 3:
            raise IndexError("index 7 is out of bounds")
        return whole(rank, *args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(analysis_report, "analyze_rank", analyze_rank)
    report = report_of([ranks])
    assert len(report.ranks) == NUM_RANKS - 1
    unreadable = [one.message for one in report.warnings if one.slug == "file-unreadable"]
    assert unreadable == [f"{file_of(ranks, 3)}: it could not be analysed (IndexError: index 7 is out of bounds)"]
    # Alone it is what it is: a mistake in memtrace, told with its traceback where that is asked for.
    with pytest.raises(IndexError):
        report_of([file_of(ranks, 3)])


def test_a_newer_file_is_an_error_whatever_else_is_there(own_ranks: Path) -> None:
    newer = {"format": "memtrace-trace", "version": TRACE_VERSION + 1}
    file_of(own_ranks, 5).write_bytes(gzip.compress(json.dumps(newer).encode()))
    with pytest.raises(TraceVersionError, match="rank-00005"):
        report_of([own_ranks])


def test_nothing_at_all_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TraceReadError, match="no trace in this folder"):
        report_of([tmp_path])
    with pytest.raises(TraceReadError, match="no trace was named"):
        report_of([])


def test_the_same_process_twice_counts_once(ranks: Path) -> None:
    report = report_of([ranks, file_of(ranks, 2)])
    assert len(report.ranks) == NUM_RANKS
    assert [one.slug for one in report.warnings] == ["duplicate-rank"]


def test_progress_counts_files(ranks: Path) -> None:
    told: list[tuple[str, int, int | None]] = []
    report_of([ranks], progress=lambda *what: told.append(what))
    assert told[-1] == (f"analysed {NUM_RANKS} of {NUM_RANKS} files", NUM_RANKS, NUM_RANKS)
