"""Recordings watched while they run: progress is seen, a killed rank is seen, and watching disturbs nothing."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from memtrace.launch.live import Watch
from memtrace.launch.live_results import LiveRun, RankState
from memtrace.store.reading.read import read_trace
from tests.conftest import RunMemtrace
from tests.process.conftest import Workplace

STEP_BY_STEP = """
import os, pathlib, time

def wait(step):
    "Hold backward's end back until the test lets this step go on."
    while not pathlib.Path(f"go-{step}").exists():
        time.sleep(0.02)

train(4, wait)
"""
"""Ends a step when a file says so, so that no test depends on how fast the machine is."""

SEVERAL = (
    "import os, subprocess, sys\nranks = [subprocess.Popen([sys.executable, 'train.py'], "
    "env={**os.environ, 'RANK': str(rank), 'LOCAL_RANK': str(rank), 'WORLD_SIZE': '2'}) for rank in range(2)]\n"
    "sys.exit(max(abs(one.wait()) for one in ranks))"
)


@pytest.fixture
def running(work: Workplace) -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """A function that starts a recording of train.py, or of another program; whatever runs at the end is ended."""
    work.write("train.py", STEP_BY_STEP)
    started: list[subprocess.Popen[bytes]] = []

    def start(*command: str) -> subprocess.Popen[bytes]:
        started.append(work.start(*(command or (sys.executable, "train.py"))))
        return started[-1]

    yield start
    for step in range(1, 5):
        (work.folder / f"go-{step}").touch()
    for process in started:
        try:
            process.communicate(timeout=60)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()


def seen(folder: Path, is_it: Callable[[LiveRun], bool]) -> LiveRun:
    """Look at the recording until it is as it should be."""
    end = time.monotonic() + 90
    while not (folder / "t.json.parts" / "launcher.json").exists():
        assert time.monotonic() < end
        time.sleep(0.05)
    watch = Watch(str(folder / "t.json"))
    while True:
        run = watch.look(time.time_ns())
        if is_it(run):
            return run
        assert time.monotonic() < end, run
        time.sleep(0.05)


def in_step(step: int, num_ranks: int = 1) -> Callable[[LiveRun], bool]:
    """Return whether every rank is in this step, after its backward."""

    def is_it(run: LiveRun) -> bool:
        return len(run.ranks) == num_ranks and all((one.step, one.phase) == (step, "other") for one in run.ranks)

    return is_it


def test_progress_is_seen_and_watching_disturbs_nothing(
    work: Workplace, running: Callable[..., subprocess.Popen[bytes]], run_memtrace: RunMemtrace
) -> None:
    process = running()
    seen(work.folder, in_step(1))
    first = run_memtrace("live", "t.json", "--once", cwd=work.folder).stdout
    assert "1 of 1 running" in first
    (work.folder / "go-1").touch()
    (work.folder / "go-2").touch()
    (rank,) = seen(work.folder, in_step(3)).ranks
    second = run_memtrace("live", "t.json", "--once", cwd=work.folder).stdout
    steps = [re.findall(r"^process \d+ +(\d+) ", text, re.MULTILINE)[0] for text in (first, second)]
    assert steps == ["1", "3"]
    assert (rank.state, rank.reserved_bytes, rank.num_alloc_retries) == (RankState.RUNNING, None, None)
    assert rank.step_ns is not None
    assert rank.host_rss_bytes is not None
    parameters = 16 * 16 * 4 + 16 * 4
    assert rank.by_category["parameter"] == parameters
    assert f"{parameters / 1024:.2f} KiB" in second
    assert rank.peak_allocated_bytes is not None
    assert rank.allocated_bytes is not None
    assert rank.peak_allocated_bytes >= rank.allocated_bytes >= parameters
    code, shown, errors = _leave_by_ctrl_c(work)
    assert (code, errors) == (0, b"")
    assert b"1 of 1 running" in shown
    # The recording is none the wiser.
    _, said = _let_end(work, process)
    assert b"Wrote t.json" in said
    after = run_memtrace("live", "t.json", cwd=work.folder)
    assert (after.returncode, after.stderr.splitlines()[1]) == (
        1,
        "hint: its recording has ended: memtrace report t.json",
    )


def _let_end(work: Workplace, process: subprocess.Popen[bytes]) -> tuple[bytes, bytes]:
    for step in range(1, 5):
        (work.folder / f"go-{step}").touch()
    return process.communicate(timeout=60)


def test_a_rank_that_is_killed_is_gone_and_the_other_runs_on(
    work: Workplace, running: Callable[..., subprocess.Popen[bytes]], run_memtrace: RunMemtrace
) -> None:
    work.write("both.py", SEVERAL, trains=False)
    process = running(sys.executable, "both.py")
    run = seen(work.folder, in_step(1, num_ranks=2))
    assert [one.rank for one in run.ranks] == [0, 1]
    victim = run.ranks[1].pid
    assert victim is not None
    os.kill(victim, signal.SIGKILL)
    (work.folder / "go-1").touch()
    run = seen(work.folder, lambda run: run.ranks[1].state is RankState.GONE and run.ranks[0].step == 2)
    assert (run.ranks[0].state, run.is_over) == (RankState.RUNNING, False)
    text = run_memtrace("live", "t.json.parts", "--once", cwd=work.folder).stdout
    assert "1 of 2 running" in text
    assert f"rank 1: process {victim} is gone, in other of step 1" in text
    # Without a terminal, a line for each rank that got on; it ends by itself with the recording.
    lines = subprocess.Popen(
        [sys.executable, "-m", "memtrace", "live", "t.json", "--interval", "0.1"],
        cwd=work.folder,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert lines.stdout is not None
    assert "step 2" in lines.stdout.readline()
    _let_end(work, process)
    out, _ = lines.communicate(timeout=60)
    assert (lines.returncode, out.splitlines()[-1]) == (0, "the recording is over")
    assert [one.rank for one in read_trace(work.folder / "t.json").ranks] == [0, 1]


def _leave_by_ctrl_c(work: Workplace) -> tuple[int, bytes, bytes]:
    """Watch in a terminal until a frame is there, press Ctrl-C; return exit code, what was shown, errors."""
    ours, theirs = pty.openpty()
    live = subprocess.Popen(
        [sys.executable, "-m", "memtrace", "live", "t.json"],
        cwd=work.folder,
        stdout=theirs,
        stderr=subprocess.PIPE,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "90"},
    )
    os.close(theirs)
    shown = b""
    while b"other" not in shown:
        shown += os.read(ours, 4096)
    live.send_signal(signal.SIGINT)
    _, errors = live.communicate(timeout=30)
    os.close(ours)
    return live.returncode, shown, errors


def test_a_recording_without_a_launcher_is_over_once_its_process_was_killed(
    work: Workplace, run_memtrace: RunMemtrace
) -> None:
    script = "import memtrace\nmemtrace.start('t.json')\n"
    path = work.write("alone.py", STEP_BY_STEP)
    path.write_text(script + path.read_text())
    with subprocess.Popen([sys.executable, "alone.py"], cwd=work.folder, stdout=subprocess.DEVNULL) as process:
        parts = work.folder / "t.json.parts"
        end = time.monotonic() + 90
        while not any(json.loads(one.read_text())["step"] == 1 for one in parts.glob("*.status.json")):
            assert time.monotonic() < end
            time.sleep(0.05)
        (work.folder / "go-1").touch()
        process.kill()
    time.sleep(2.1)
    (rank,) = Watch(str(work.folder / "t.json")).look(time.time_ns()).ranks
    assert rank.state is RankState.GONE
    done = run_memtrace("live", "t.json", cwd=work.folder)
    assert done.returncode == 0
    assert done.stdout.splitlines()[-1] == "the recording is over"


def test_one_that_was_never_begun_is_an_error(tmp_path: Path, run_memtrace: RunMemtrace) -> None:
    done = run_memtrace("live", "nothing.json", cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith("error: nothing.json: no recording runs there\nhint: ")
