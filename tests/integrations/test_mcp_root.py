"""What lies outside the root of the server does not exist, and no question takes forever."""

from __future__ import annotations

import os
import shutil
import socket
import threading
import time
from pathlib import Path

import pytest

from memtrace.errors import MemtraceError, TraceReadError
from memtrace.integrations.mcp.time_limit import within
from memtrace.integrations.mcp.traces import Traces
from memtrace.store.opening import NotRegularError, open_regular, reading_below
from memtrace.store.writing.trace import write_trace
from tests.builders import rank_trace, trace_of


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A root with a run in it, and beside it a run that is nobody's business."""
    (tmp_path / "root" / "run").mkdir(parents=True)
    (tmp_path / "outside").mkdir()
    for path in (tmp_path / "root" / "own.json", tmp_path / "root" / "run" / "a.json", tmp_path / "outside" / "b.json"):
        write_trace(trace_of(rank_trace()), path)
    return tmp_path / "root"


def _answer(root: Path, name: str | Path) -> str:
    with pytest.raises(TraceReadError) as caught:
        Traces(root).load(str(name))
    return str(caught.value.message).replace(str(name), "NAME")


def test_outside_is_answered_like_absent(root: Path) -> None:
    outside = root.parent / "outside"
    (root / "link.json").symlink_to(outside / "b.json")
    (root / "folder").symlink_to(outside)
    (root / "loop.json").symlink_to("loop.json")
    names = [
        outside / "b.json",
        outside / "missing.json",
        root / "link.json",
        root / "folder" / "b.json",
        root / ".." / "outside" / "b.json",
        root / "missing.json",
        root / "loop.json",
        "/" + "x" * 5000,
        "x/" * 2500,
        "nul\0",
        "\ud800",
        "",
    ]
    answers = {_answer(root, name).removeprefix("NAME") for name in names if name}
    assert answers == {f": no such file or folder below {root}"}
    assert Traces(root).load(str(root / "own.json")).trace.ranks


def test_a_link_inside_a_run_folder_is_not_followed_out(root: Path) -> None:
    alone = len(Traces(root).load(str(root / "run")).trace.ranks)
    (root / "run" / "b.json").symlink_to(root.parent / "outside" / "b.json")
    confined = Traces(root).load(str(root / "run")).trace
    assert len(confined.ranks) == alone
    (root / "run" / "b.json").unlink()
    (root / "run" / "b.json").symlink_to(root.parent / "outside" / "missing.json")
    assert Traces(root).load(str(root / "run")).trace.warnings == confined.warnings
    (root / "run" / "b.json").unlink()
    (root / "run" / "b.json").symlink_to(root / "own.json")
    assert len(Traces(root).load(str(root / "run")).trace.ranks) == alone + 1


def test_a_link_that_is_changed_between_look_and_open_is_noticed(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name, really_open = root / "swap.json", os.open
    shutil.copy(root / "own.json", name)

    def swapped(path: Path, flags: int) -> int:
        name.unlink()
        name.symlink_to(root.parent / "outside" / "b.json")
        return really_open(path, flags)

    monkeypatch.setattr(os, "open", swapped)
    with reading_below(root), pytest.raises(FileNotFoundError):
        open_regular(name)


def test_what_is_no_regular_file_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(os.path.relpath(tmp_path / "socket"))
        for path in (tmp_path / "pipe", tmp_path / "socket", Path("/dev/zero"), tmp_path):
            with pytest.raises(NotRegularError):
                open_regular(path)
    assert "not a regular file" in _answer(tmp_path, tmp_path / "pipe")


def test_a_question_that_takes_too_long_is_given_up_and_its_thread_ends() -> None:
    lock = threading.Lock()

    def ask() -> None:
        with lock:
            while True:
                time.sleep(0.001)

    with pytest.raises(MemtraceError, match=r"no answer within 0\.05 s"):
        within(0.05, ask)
    assert lock.acquire(timeout=30)


def test_an_answer_and_an_error_pass_through_the_limit() -> None:
    assert within(60, lambda: 3) == 3
    with pytest.raises(ZeroDivisionError):
        within(60, lambda: 1 // 0)
