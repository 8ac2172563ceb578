"""The spool: what is flushed is there, whatever happens next, and a full disk costs the recording only."""

from __future__ import annotations

import json
import os
import random
import resource
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from memtrace.hooks.parts.spool import MAX_PENDING_BYTES, Spool, encode
from memtrace.schema.records import CHUNK, PART_SUFFIX, SNAPSHOT_SUFFIX, WARNING


def lines(path: str | Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(path).read_bytes().splitlines()]


@pytest.fixture
def warned() -> list[str]:
    return []


@pytest.fixture
def spool(tmp_path: Path, warned: list[str]) -> Iterator[Spool]:
    spool = Spool(str(tmp_path / "t.json.parts"), rank=3, warn_once=warned.append)
    yield spool
    spool.close()


def test_the_name_tells_rank_host_and_process_and_is_unique(tmp_path: Path) -> None:
    state = random.getstate()
    names = {Spool(str(tmp_path), rank=3).name for _ in range(20)}
    assert len(names) == 20
    assert all(name.startswith("rank00003-") and f"-{os.getpid()}-" in name for name in names)
    assert random.getstate() == state  # the program's random numbers are its own
    assert list(tmp_path.iterdir()) == []  # nothing is written before there is something to say


def test_records_are_on_disk_once_flushed_and_not_before(spool: Spool) -> None:
    spool.write({"k": "header", "rank": 3})
    assert not Path(spool.main_path).exists()
    spool.flush()
    spool.write({"k": "step", "step": 1})
    assert lines(spool.main_path) == [{"k": "header", "rank": 3}]
    spool.close()
    assert lines(spool.main_path) == [{"k": "header", "rank": 3}, {"k": "step", "step": 1}]


def test_a_closed_spool_appends_when_written_again(spool: Spool) -> None:
    spool.write({"k": "step", "step": 1})
    spool.close()
    spool.write({"k": "end"})
    spool.close()
    assert [line["k"] for line in lines(spool.main_path)] == ["step", "end"]


def test_what_waits_in_memory_is_bounded(spool: Spool) -> None:
    for number in range(30):
        spool.write({"k": "step", "text": "x" * (MAX_PENDING_BYTES // 20), "step": number})
    assert len(lines(spool.main_path)) >= 20


def test_a_chunk_appears_as_a_whole_and_is_dropped_with_its_dumps(spool: Spool, tmp_path: Path) -> None:
    assert spool.write_chunk(7, ({"k": kind} for kind in (CHUNK, "chunk_end")))
    path = Path(spool.chunk_path(7, PART_SUFFIX))
    assert path.name == f"{spool.name}.chunk-000007.jsonl"
    assert [line["k"] for line in lines(path)] == [CHUNK, "chunk_end"]
    Path(spool.chunk_path(7, SNAPSHOT_SUFFIX)).write_bytes(b"pickle")
    spool.drop_chunk(7)
    spool.drop_chunk(8)
    assert list(path.parent.iterdir()) == []


def test_a_chunk_that_is_interrupted_leaves_nothing(spool: Spool) -> None:
    def records() -> Iterator[dict[str, Any]]:
        yield {"k": CHUNK}
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        spool.write_chunk(1, records())
    assert list(Path(spool.chunk_path(1, "")).parent.iterdir()) == []
    assert not spool.broken


@contextmanager
def small_files() -> Iterator[int]:
    """A real limit on the size of files: writing beyond it fails as on a full disk.

    Inside the test alone: pytest's own output may be a file that is larger already.
    """
    limit = 10_000
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        yield limit
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


def test_when_the_disk_is_full_the_file_ends_with_a_whole_line_and_one_warning_is_given(
    spool: Spool, warned: list[str]
) -> None:
    with small_files() as limit:
        for number in range(200):
            spool.write({"k": "step", "step": number, "text": "x" * 100})
            spool.flush()
        assert not spool.write_chunk(1, [{"k": CHUNK}])
    assert spool.broken
    assert len(warned) == 1
    assert 0 < os.path.getsize(spool.main_path) <= limit
    assert [line["step"] for line in lines(spool.main_path)] == list(range(len(lines(spool.main_path))))


def test_a_chunk_too_many_stops_the_chunks_but_the_small_main_part_says_so(spool: Spool, warned: list[str]) -> None:
    with small_files():
        assert not spool.write_chunk(1, ({"k": CHUNK, "text": "x" * 1000} for _ in range(100)))
        assert not spool.write_chunk(2, [{"k": CHUNK}])
        spool.write({"k": "end"})
        spool.close()
    assert [line["k"] for line in lines(spool.main_path)] == [WARNING, "end"]
    assert len(warned) == 1
    assert [path.name for path in Path(spool.main_path).parent.iterdir()] == [f"{spool.name}.jsonl"]


def test_a_folder_that_cannot_be_made_is_one_warning(tmp_path: Path, warned: list[str]) -> None:
    (tmp_path / "file").touch()
    spool = Spool(str(tmp_path / "file" / "parts"), rank=None, warn_once=warned.append)
    for _ in range(3):
        spool.write({"k": "step"})
        spool.flush()
        spool.write_chunk(1, [])
    spool.close()
    assert spool.broken
    assert len(warned) == 1


def test_the_warning_goes_to_stderr_and_nothing_to_stdout(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    Spool(str(tmp_path / "file"), rank=None).write_chunk(1, [])
    shown = capfd.readouterr()
    assert shown.out == ""
    assert shown.err.startswith("memtrace: the recording stopped")
    assert shown.err.count("\n") == 1
    monkeypatch.setattr("sys.stderr", None)
    Spool(str(tmp_path / "file"), rank=None).write_chunk(1, [])
    assert capfd.readouterr() == ("", "")


def test_a_forked_child_writes_nothing(spool: Spool) -> None:
    spool.write({"k": "header"})
    child = os.fork()
    if child == 0:
        spool.write({"k": "from the child"})
        spool.flush()
        spool.write_chunk(1, [])
        spool.close()
        os._exit(0)
    os.waitpid(child, 0)
    assert not Path(spool.main_path).parent.exists()
    spool.flush()
    assert lines(spool.main_path) == [{"k": "header"}]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (float("inf"), None),
        ([1.5, float("nan")], [1.5, None]),
        ({"lr": float("-inf")}, {"lr": None}),
        ("caf\u00e9 \U0001f600", "caf\u00e9 \U0001f600"),
        ("not utf-8: \udc80", "not utf-8: ?"),
        (Path("a"), "a"),
    ],
)
def test_what_json_cannot_say_does_not_cost_the_record(value: object, expected: object) -> None:
    line = encode({"k": "x", "v": value})
    assert json.loads(line, parse_constant=lambda name: pytest.fail(name)) == {"k": "x", "v": expected}
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1


def test_a_main_part_whose_folder_was_removed_is_begun_again(spool: Spool, tmp_path: Path, warned: list[str]) -> None:
    spool.write({"k": "header", "rank": 3})
    spool.write({"k": "step", "step": 1})
    spool.flush()
    shutil.rmtree(tmp_path / "t.json.parts")
    spool.write({"k": "facts", "exit": 0})
    spool.write({"k": "step", "step": 2})
    spool.flush()
    assert [record.get("step", record["k"]) for record in lines(spool.main_path)] == ["header", "facts", WARNING, 2]
    assert spool.write_chunk(0, [{"k": CHUNK}])
    assert warned == []


def test_a_folder_of_the_program_that_it_removed_is_not_made_again(tmp_path: Path, warned: list[str]) -> None:
    spool = Spool(str(tmp_path / "runs" / "t.json.parts"), rank=3, warn_once=warned.append)
    (tmp_path / "runs").mkdir()
    spool.write({"k": "header"})
    spool.flush()
    shutil.rmtree(tmp_path / "runs")
    for step in (1, 2):
        spool.write({"k": "step", "step": step})
        spool.flush()
        assert not spool.write_chunk(step, [{"k": CHUNK}])
    spool.close()
    assert len(warned) == 1
    assert list(tmp_path.iterdir()) == []
