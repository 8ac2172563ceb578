"""Ranks read in several processes: the same report as one after the other, whatever happens to the processes."""

from __future__ import annotations

import functools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from memtrace.cli import group
from memtrace.errors import TraceReadError
from memtrace.parallel import processes, run
from memtrace.parallel.one_file import FileAnalysis, Outcome
from memtrace.parallel.processes import analyze_in_processes, num_processors
from memtrace.parallel.run import report_of
from memtrace.parallel.sources import find_sources
from memtrace.report.json.report import report_json
from tests.parallel.conftest import NUM_RANKS, damage
from tests.parallel.dying import analyze_or_die

InTurn = Callable[[Path], bytes]


@pytest.fixture
def in_processes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Lets small runs be read in two processes; returns the numbers of processes that were asked for."""
    asked: list[int] = []

    def noted(*args: object, num_processes: int) -> object:
        asked.append(num_processes)
        return analyze_in_processes(*args, num_processes=num_processes)  # type: ignore[arg-type]

    monkeypatch.setattr(run, "SMALL_BYTES", 0)
    monkeypatch.setattr(run, "num_processors", lambda: 2)
    monkeypatch.setattr(run, "analyze_in_processes", noted)
    return asked


def outcomes(folder: Path, tmp_path: Path, deaths: dict[str, int]) -> tuple[list[Outcome], int]:
    """Return what came of each file, and how often a process died."""
    notes = tmp_path / "notes"
    notes.mkdir()
    work = functools.partial(analyze_or_die, notes=str(notes), deaths=deaths)
    sources = find_sources([folder])
    found = dict(analyze_in_processes(work, sources, num_processes=2))
    assert sorted(found) == list(range(len(sources))), "each file once"
    return [found[at] for at in range(len(sources))], len(list(notes.iterdir()))


@pytest.mark.process
def test_several_processes_give_the_same_bytes(ranks: Path, in_turn: InTurn, in_processes: list[int]) -> None:
    result = CliRunner().invoke(group, ["report", str(ranks), "--json"])
    assert result.exit_code == 0, result.output
    assert in_processes == [2]
    assert result.stdout_bytes == in_turn(ranks)
    assert [one["rank"] for one in json.loads(result.stdout)["ranks"]] == list(range(NUM_RANKS))


@pytest.mark.process
def test_three_corrupt_ranks_are_reported_and_do_not_stop_the_rest(
    own_ranks: Path, in_turn: InTurn, in_processes: list[int]
) -> None:
    damage(own_ranks, 2, 5, 11)
    (own_ranks / "notes.txt").write_text("batch size 8")
    report = report_of([own_ranks])
    assert in_processes == [2]
    assert report_json(report) == in_turn(own_ranks)
    assert [rank.rank for rank in report.ranks] == [0, 1, 3, 4, 6, 7, 8, 9, 10]
    unreadable = [one.message for one in report.warnings if one.slug == "file-unreadable"]
    assert ["rank-00002" in unreadable[0], "rank-00005" in unreadable[1], "rank-00011" in unreadable[2]] == [True] * 3
    (missing,) = [one for one in report.warnings if one.slug == "missing-ranks"]
    assert missing.count == 3
    assert missing.message.endswith("2, 5, 11.")


@pytest.mark.process
def test_a_killed_process_loses_nothing_but_a_file_that_kills_two(ranks: Path, tmp_path: Path) -> None:
    poisonous, unlucky = "rank-00000.json.gz", "rank-00007.json.gz"
    found, num_deaths = outcomes(ranks, tmp_path, {poisonous: 9, unlucky: 1})
    assert num_deaths == 3
    given_up, *rest = found
    assert isinstance(given_up, TraceReadError)
    assert poisonous in given_up.message
    assert [isinstance(one, FileAnalysis) for one in rest] == [True] * (NUM_RANKS - 1)


def test_processes_end_with_the_one_that_started_them(ranks: Path, tmp_path: Path) -> None:
    code = f"""
if __name__ == "__main__":
    import sys, time
    from memtrace.parallel.processes import analyze_in_processes
    from memtrace.parallel.one_file import analyze_file
    from memtrace.parallel.sources import find_sources
    for at, outcome in analyze_in_processes(analyze_file, find_sources([{str(ranks)!r}]), num_processes=2):
        print("one is done", flush=True)
        time.sleep(60)
"""
    script = tmp_path / "interrupted.py"
    script.write_text(code)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, env=environment) as running:
        assert running.stdout is not None
        assert running.stdout.readline() == b"one is done\n"
        children = children_of(running.pid)
        assert len(children) >= 2
        os.kill(running.pid, signal.SIGKILL)
        running.wait(timeout=60)
    deadline = time.monotonic() + 60
    while alive := [pid for pid in children if is_running(pid)]:
        assert time.monotonic() < deadline, alive
        time.sleep(0.05)


def children_of(pid: int) -> list[int]:
    """Return the processes that a process has started."""
    lists = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(child) for one in lists for child in one.read_text().split()]


def is_running(pid: int) -> bool:
    """Return whether a process is there and no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_small_run_starts_no_process(ranks: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "num_processors", lambda: 64)
    monkeypatch.setattr(run, "analyze_in_processes", None)
    assert len(report_of([ranks]).ranks) == NUM_RANKS


def test_one_file_starts_no_process_however_large(ranks: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "SMALL_BYTES", 0)
    monkeypatch.setattr(run, "num_processors", lambda: 64)
    monkeypatch.setattr(run, "analyze_in_processes", None)
    assert len(report_of([ranks / "rank-00000.json.gz"]).ranks) == 1


@pytest.mark.parametrize(
    ("quota", "expected"), [("max 100000", 8), ("250000 100000", 2), ("50000 100000", 1), ("1600000 100000", 8)]
)
def test_the_quota_of_a_container_counts(
    quota: str, expected: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cpu.max").write_text(f"{quota}\n")
    monkeypatch.setattr(processes, "_CPU_QUOTA", tmp_path / "cpu.max")
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)))
    assert num_processors() == expected
    monkeypatch.setattr(processes, "_CPU_QUOTA", tmp_path / "none")
    assert num_processors() == 8
