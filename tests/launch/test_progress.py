"""What is said of a program that is still running, and how often."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from itertools import pairwise
from pathlib import Path

import pytest

from memtrace.cli.predicting.progress import progress_of
from memtrace.launch.progress import Progress
from memtrace.launch.signals import run_and_forward
from memtrace.schema.status import STATUS_BYTES, STATUS_SUFFIX


class Clock:
    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


def write_status(folder: Path, name: str, step: int | None) -> None:
    text = json.dumps({"step": 0, "ended_step": step})
    (folder / f"{name}{STATUS_SUFFIX}").write_text(text.ljust(STATUS_BYTES))


def test_steps_and_time_so_far(tmp_path: Path, clock: Clock) -> None:
    said: list[str] = []
    progress = Progress(3, said.append, every_s=5, clock=clock)
    for seconds, step in ((5, None), (5, 2), (65, 7)):
        clock.now_s += seconds
        write_status(tmp_path, "main", step)
        # A worker that never trains does not hide what the main process did.
        write_status(tmp_path, "worker", None)
        progress(tmp_path)
    assert [line.partition(":")[0] for line in said] == ["5 s", "10 s", "1 min 15 s"]
    assert "no step yet" in said[0]
    assert "sampling" in said[0]
    assert [line.partition(": ")[2] for line in said[1:]] == ["2 of 3 steps", "3 of 3 steps"]


def test_before_torch_is_there(tmp_path: Path, clock: Clock) -> None:
    said: list[str] = []
    progress = Progress(3, said.append, every_s=5, clock=clock)
    clock.now_s += 6
    progress(tmp_path)
    assert said == ["6 s: no step yet; the program has not imported torch"]


def test_lines_become_rarer_and_half_written_files_do_no_harm(tmp_path: Path, clock: Clock) -> None:
    (tmp_path / f"main{STATUS_SUFFIX}").write_text('{"ended_')
    times: list[float] = []
    progress = Progress(3, lambda _line: times.append(clock.now_s), every_s=5, clock=clock)
    for _ in range(1000):
        clock.now_s += 1
        progress(tmp_path)
    gaps = [later - before for before, later in pairwise(times)]
    assert gaps == sorted(gaps)
    assert gaps[0] == 5
    assert gaps[-1] > 50


def test_a_stream_that_is_gone_ends_nothing(tmp_path: Path, clock: Clock) -> None:
    def gone(_line: str) -> None:
        raise BrokenPipeError

    progress = Progress(3, gone, every_s=5, clock=clock)
    clock.now_s += 6
    progress(tmp_path)


def test_who_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    assert progress_of(3, is_silent=True) is None
    assert progress_of(3, is_silent=False) is not None
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    assert progress_of(3, is_silent=True) is not None


def test_called_while_a_child_runs_and_its_status_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("memtrace.launch.signals._CHECK_S", 0.02)
    read_end, write_end = os.pipe()
    calls: list[int] = []

    def meanwhile() -> None:
        # The child ends only once it was called.
        calls.append(os.write(write_end, b"x"))

    def start(_before_exec: object) -> subprocess.Popen[bytes]:
        return subprocess.Popen(["sh", "-c", "head -c 1 >/dev/null; exit 7"], stdin=read_end)

    try:
        assert run_and_forward(start, meanwhile=meanwhile) == 7
    finally:
        os.close(read_end)
        os.close(write_end)
    assert calls


def test_a_child_whose_end_another_thread_was_told_of_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("memtrace.launch.signals._CHECK_S", 0.02)
    is_over = threading.Event()
    # It blocks no signal: what comes while the main thread does not wait is its own.
    other = threading.Thread(target=is_over.wait)
    other.start()
    children: list[subprocess.Popen[bytes]] = []

    def start(_before_exec: object) -> subprocess.Popen[bytes]:
        children.append(subprocess.Popen(["sh", "-c", "read -r _; exit 7"], stdin=subprocess.PIPE))
        return children[0]

    def meanwhile() -> None:
        [child] = children
        assert child.stdin is not None
        child.stdin.close()
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)

    try:
        assert run_and_forward(start, meanwhile=meanwhile) == 7
    finally:
        is_over.set()
        other.join()
