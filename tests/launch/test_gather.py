"""From parts to output: the parts go only when the output is there, and many ranks become a folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from memtrace.errors import OutputError, RecordError, TraceReadError
from memtrace.launch.gather import MAX_RANKS_IN_FILE, gather, merge_folder, trace_header
from memtrace.launch.output import Output, plan_output, write_launcher
from memtrace.schema.options import RecordOptions
from memtrace.schema.version import PART_FORMAT, TRACE_VERSION
from memtrace.store.reading.read import read_trace

HEADER = trace_header(["python", "train.py"], RecordOptions(parts_dir="secret"), 0)


def write_part(folder: Path, *, rank: int | None, pid: int = 1, ended: bool = True, **header: Any) -> None:
    """Write the main part of one process: a header, one step, and perhaps an end."""
    start = "process" if rank is None else f"rank{rank:05d}"
    records: list[dict[str, Any]] = [
        {
            "k": "header",
            "format": PART_FORMAT,
            "version": TRACE_VERSION,
            "rank": rank,
            "pid": pid,
            "host": "h",
            **header,
        },
        {"k": "step", "step": 1, "start_ns": 1, "end_ns": 2, "num_microbatches": 1},
        *([{"k": "end", "end_ns": 3, "complete": True}] if ended else []),
    ]
    path = folder / f"{start}-h-{pid}-ff.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in records))


@pytest.fixture
def output(tmp_path: Path) -> Output:
    return plan_output(tmp_path / "t.json", ["python", "train.py"], force=False, environ={})


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_one_file_and_no_parts(output: Output, tmp_path: Path) -> None:
    write_part(output.parts_dir, rank=1, world_size=2)
    write_part(output.parts_dir, rank=0, world_size=2)
    written = gather(output, HEADER)
    assert written is not None
    assert (written.path, written.num_processes, written.is_complete) == (output.path, 2, True)
    assert written.num_bytes == output.path.stat().st_size
    assert files(tmp_path) == ["t.json"]
    trace = read_trace(output.path)
    assert [rank.rank for rank in trace.ranks] == [0, 1]
    assert trace.header["command"] == ["python", "train.py"]
    assert "secret" not in output.path.read_text()


def test_nothing_recorded_leaves_nothing(output: Output, tmp_path: Path) -> None:
    write_launcher(output, {})
    assert gather(output, HEADER) is None
    assert files(tmp_path) == []


def test_many_ranks_become_a_run_folder(output: Output, tmp_path: Path) -> None:
    for rank in range(MAX_RANKS_IN_FILE + 1):
        write_part(output.parts_dir, rank=rank)
    write_part(output.parts_dir, rank=3, pid=99)  # a process that rank 3 started
    gather(output, HEADER)
    assert files(tmp_path) == ["t.json"]
    assert files(output.path) == [f"rank-{rank:05d}.json.gz" for rank in range(MAX_RANKS_IN_FILE + 1)]
    trace = read_trace(output.path)
    assert [rank.rank for rank in trace.ranks] == sorted([*range(MAX_RANKS_IN_FILE + 1), 3])


def test_the_parts_stay_if_the_output_cannot_be_written(output: Output) -> None:
    write_part(output.parts_dir, rank=None)
    output.path.write_text("someone else's, written meanwhile")
    with pytest.raises(OutputError, match="exists already"):
        gather(output, HEADER)
    assert output.path.read_text() == "someone else's, written meanwhile"
    assert len(files(output.parts_dir)) == 1


def test_a_half_written_output_never_replaces_a_good_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "t.json").write_text("good")
    output = plan_output(tmp_path / "t.json", ["x"], force=True, environ={})
    write_part(output.parts_dir, rank=None)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OutputError, match="No space left"):
        gather(output, HEADER)
    assert (tmp_path / "t.json").read_text() == "good"
    assert files(tmp_path) == ["t.json", "t.json.parts"]


def test_unreadable_parts_stay(output: Output) -> None:
    (output.parts_dir / "process-h-1-ff.jsonl").write_text('{"k": "header", "version": "x"}\n')
    with pytest.raises(TraceReadError):
        gather(output, HEADER)
    assert output.parts_dir.exists()


def test_a_possible_kill_by_the_host_is_noted_where_something_broke_off(output: Output) -> None:
    write_part(output.parts_dir, rank=0, ended=False)
    gather(output, HEADER, killed="The host killed a process.")
    warnings = read_trace(output.path).warnings
    assert [(one.slug, one.message) for one in warnings] == [("host-kill-possible", "The host killed a process.")]


def test_no_kill_is_noted_where_all_ended_in_order(output: Output) -> None:
    write_part(output.parts_dir, rank=0)
    gather(output, HEADER, killed="The host killed a process.")
    assert read_trace(output.path).warnings == ()


def share(tmp_path: Path, rank: str, *, force: bool = False) -> Output:
    return plan_output(tmp_path / "run", ["x"], force=force, environ={"SLURM_PROCID": rank})


def test_launchers_write_their_own_ranks_only(tmp_path: Path) -> None:
    outputs = [share(tmp_path, "0"), share(tmp_path, "1")]
    for rank, output in enumerate(outputs):
        write_part(output.parts_dir, rank=rank, world_size=2)
    gather(outputs[0], HEADER)
    assert files(tmp_path / "run") == ["launcher-00001.parts", "rank-00000.json.gz"]
    assert len(read_trace(tmp_path / "run").ranks) == 2  # read while the other is still there
    gather(outputs[1], HEADER)
    assert files(tmp_path / "run") == ["rank-00000.json.gz", "rank-00001.json.gz"]
    assert read_trace(tmp_path / "run").warnings == ()


def test_two_launchers_that_claim_one_rank_lose_nothing(tmp_path: Path) -> None:
    for launcher, pid in (("0", 10), ("1", 11)):
        output = share(tmp_path, launcher)
        write_part(output.parts_dir, rank=0, pid=pid)
        written = gather(output, HEADER)
    assert written is not None
    assert [path.name for path in written.other_names] == ["rank-00000-h-11.json.gz"]
    assert len(read_trace(tmp_path / "run").ranks) == 2


def test_a_launcher_without_a_recording_leaves_no_empty_folder(tmp_path: Path) -> None:
    assert gather(share(tmp_path, "0"), HEADER) is None
    assert files(tmp_path) == []


def test_force_removes_ranks_of_a_larger_run(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    for rank in range(3):
        (tmp_path / "run" / f"rank-{rank:05d}.json.gz").touch()
    output = plan_output(tmp_path / "run", ["x"], force=True, environ={})
    write_part(output.parts_dir, rank=0)
    gather(output, HEADER)
    assert files(tmp_path / "run") == ["rank-00000.json.gz"]


def test_merge_of_parts_knows_the_command_and_keeps_the_parts(output: Output, tmp_path: Path) -> None:
    write_launcher(output, {"header": {"command": ["python", "train.py"], "exit_status": None, "redacted": False}})
    write_part(output.parts_dir, rank=0, ended=False)
    merge_folder(output.parts_dir, tmp_path / "merged.json", force=False)
    trace = read_trace(tmp_path / "merged.json")
    assert trace.header["command"] == ["python", "train.py"]
    assert not trace.ranks[0].complete
    assert len(files(output.parts_dir)) == 2


def test_merge_of_a_run_folder_with_a_launcher_that_died(tmp_path: Path) -> None:
    outputs = [share(tmp_path, "0"), share(tmp_path, "1")]
    for rank, output in enumerate(outputs):
        write_part(output.parts_dir, rank=rank, ended=rank == 0)
    gather(outputs[0], HEADER)
    merge_folder(tmp_path / "run", tmp_path / "all.json", force=False)
    trace = read_trace(tmp_path / "all.json")
    assert [(rank.rank, rank.complete) for rank in trace.ranks] == [(0, True), (1, False)]
    assert trace.header["command"] == ["python", "train.py"]


def test_merge_of_an_empty_folder_says_what_it_wants(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match="no parts of a recording are there"):
        merge_folder(tmp_path, tmp_path / "t.json", force=False)


def test_the_same_parts_give_the_same_bytes(output: Output, tmp_path: Path) -> None:
    for rank in (2, 0, 1):
        write_part(output.parts_dir, rank=rank)
    for name in ("a.json.gz", "b.json.gz"):
        merge_folder(output.parts_dir, tmp_path / name, force=False)
    assert (tmp_path / "a.json.gz").read_bytes() == (tmp_path / "b.json.gz").read_bytes()


def test_a_redacted_header_has_no_command() -> None:
    header = trace_header(["python", "secret.py"], RecordOptions(parts_dir="p", redact=True), -9)
    assert (header["command"], header["redacted"], header["exit_status"]) == (None, True, -9)
