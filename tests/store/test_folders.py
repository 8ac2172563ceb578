"""Run folders, several files, and what joining them says."""

from __future__ import annotations

import json
import pickle
from dataclasses import replace
from pathlib import Path

import pytest

from memtrace.errors import TraceReadError
from memtrace.store.reading.merge import merge_traces
from memtrace.store.reading.read import read_trace
from memtrace.store.trace import LoadWarning
from memtrace.store.writing.trace import write_trace
from tests.builders import parts, rank_trace, snapshot, trace_of


def write_rank(folder: Path, rank: int, **header: object) -> Path:
    path = folder / f"rank{rank}.json.gz"
    write_trace(trace_of(rank_trace({"rank": rank, "pid": 100 + rank, "world_size": 4, **header})), path)
    return path


def test_run_folder_is_read_with_the_parts_that_nobody_assembled(tmp_path: Path) -> None:
    for rank in (2, 0):
        write_rank(tmp_path, rank)
    parts(tmp_path / "rank1.json.gz.parts").header(rank=1, world_size=4, pid=101)
    (tmp_path / "notes.txt").write_text("batch size 8")
    (tmp_path / "metrics.json").write_text("{}")
    trace = read_trace(tmp_path)
    assert [(rank.rank, rank.complete) for rank in trace.ranks] == [(0, True), (1, False), (2, True)]
    assert [(one.slug, one.count) for one in trace.warnings] == [("missing-ranks", 1)]
    assert "3" in trace.warnings[0].message


def test_unreadable_file_in_a_folder_is_a_warning(tmp_path: Path) -> None:
    write_rank(tmp_path, 0, world_size=1)
    (tmp_path / "rank1.json.gz").write_bytes(b"\x1f\x8b cut")
    trace = read_trace(tmp_path)
    assert len(trace.ranks) == 1
    assert [one.slug for one in trace.warnings] == ["file-unreadable"]


def test_folder_with_nothing_readable_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("batch size 8")
    with pytest.raises(TraceReadError, match="no trace in this folder"):
        read_trace(tmp_path)
    (tmp_path / "trace.json").write_text('{"format": "memtrace-trace", "version"')
    with pytest.raises(TraceReadError, match="cut off"):
        read_trace(tmp_path)


def test_same_process_twice_counts_once_and_the_complete_one_wins(tmp_path: Path) -> None:
    cut = rank_trace({"rank": 0, "pid": 5, "complete": False})
    whole = rank_trace({"rank": 0, "pid": 5})
    trace = merge_traces([trace_of(cut), trace_of(whole)], path="joined")
    assert [rank.complete for rank in trace.ranks] == [True]
    assert [one.slug for one in trace.warnings] == ["duplicate-rank"]


def test_snapshots_without_a_process_id_are_never_duplicates(tmp_path: Path) -> None:
    path = tmp_path / "a.pickle"
    path.write_bytes(pickle.dumps(snapshot().alloc(1, 1).build()))
    assert len(read_trace([path, path]).ranks) == 2


def test_kind_is_told_by_content_and_not_by_name(tmp_path: Path) -> None:
    snapshot_path = tmp_path / "trace.json"
    snapshot().alloc(1, 1).write(snapshot_path)
    profile_path = tmp_path / "snapshot.pickle"
    profile_path.write_text("\ufeff " + json.dumps([{"ph": "X", "name": "f", "cat": "cpu_op", "ts": 1, "dur": 2}]))
    trace_path = tmp_path / "model.bin"
    write_trace(trace_of(rank_trace()), trace_path)
    kinds = [read_trace(path).ranks[0].source for path in (snapshot_path, profile_path, trace_path)]
    assert kinds == ["snapshot", "kineto", "recorded"]


def test_ranks_are_ordered_with_processes_outside_a_run_last() -> None:
    ranks = [rank_trace({"rank": number, "pid": pid}) for number, pid in ((None, 1), (10, 2), (2, 3), (2, 1))]
    trace = merge_traces([trace_of(*ranks)], path="joined")
    assert [(rank.rank, rank.header["pid"]) for rank in trace.ranks] == [(2, 1), (2, 3), (10, 2), (None, 1)]


def test_progress_is_told(tmp_path: Path) -> None:
    write_rank(tmp_path, 0)
    told: list[tuple[str, int, int | None]] = []
    read_trace(tmp_path, progress=lambda *what: told.append(what))
    assert any("rank0.json.gz" in text for text, _, _ in told)


def test_no_paths_at_all_is_refused() -> None:
    with pytest.raises(TraceReadError, match="no trace was named"):
        read_trace([])


def test_of_many_unreadable_files_the_first_are_named_and_the_rest_counted(tmp_path: Path) -> None:
    write_rank(tmp_path, 0, world_size=1)
    for number in range(11):
        (tmp_path / f"broken{number:02}.json").write_text('{"format": "memtrace-trace", "version"')
    *named, rest = read_trace(tmp_path).warnings
    assert [f"broken{number:02}.json" in one.message for number, one in enumerate(named)] == [True] * len(named)
    assert len(named) + rest.count == 11
    assert {one.slug for one in (*named, rest)} == {"file-unreadable"}


def test_what_the_launcher_noted_in_every_file_is_said_once(tmp_path: Path) -> None:
    killed = LoadWarning(slug="host-kill-possible", message="perhaps for want of memory")
    for rank in range(3):
        made = trace_of(rank_trace({"rank": rank, "pid": rank, "world_size": 3}))
        write_trace(replace(made, warnings=(killed,)), tmp_path / f"rank{rank}.json")
    assert read_trace(tmp_path).warnings == (killed,)
