"""A folder of unrelated traces is refused with what to type instead; ranks and processes of one run are read as one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from memtrace.cli import group
from memtrace.errors import TraceReadError
from memtrace.parallel.run import report_of
from memtrace.store.reading.read import read_trace
from memtrace.store.writing.trace import write_trace
from tests.builders import rank_trace, snapshot, trace_of

Header = dict[str, Any]


def write(path: Path, *headers: Header) -> Path:
    """Write a trace with a process for each header; times are given as (start, end)."""
    ranks = []
    for at, header in enumerate(headers):
        facts = {"pid": 10 + at, **header}
        start, end = facts.pop("span", (None, None))
        events = [{"action": "alloc", "address": 512, "size_bytes": 512}]
        ranks.append(rank_trace({**facts, "start_ns": start, "end_ns": end}, events=events))
    path.parent.mkdir(exist_ok=True)
    write_trace(trace_of(*ranks), path)
    return path


def script(name: str, **more: Any) -> Header:
    return {"original_path": f"/home/me/{name}", **more}


UNRELATED: dict[str, tuple[Header, Header]] = {
    "other scripts": (script("a.py"), script("b.py")),
    "other scripts, the same rank": (script("a.py", rank=0, world_size=1), script("b.py", rank=0, world_size=1)),
    "other scripts, one of several ranks": (script("a.py", rank=0, world_size=2), script("b.py")),
    "other numbers of ranks": (script("a.py", rank=0, world_size=2), script("a.py", rank=1, world_size=4)),
    "one after the other": (script("a.py", span=(1, 5)), script("a.py", span=(7, 9))),
    "one rank twice, one after the other": (
        script("a.py", rank=1, world_size=2, span=(1, 5)),
        script("a.py", rank=1, world_size=2, span=(7, 9)),
    ),
}
RELATED: dict[str, tuple[Header, Header]] = {
    "ranks": (script("a.py", rank=0, world_size=2), script("a.py", rank=1, world_size=2)),
    "ranks with a script each": (script("actor.py", rank=0, world_size=2), script("critic.py", rank=1, world_size=2)),
    "ranks on machines whose clocks differ": (
        script("a.py", rank=0, world_size=2, span=(1, 5)),
        script("a.py", rank=1, world_size=2, span=(7, 9)),
    ),
    "processes at the same time": (script("a.py", span=(1, 5)), script("a.py", span=(4, 9))),
    "nothing is recorded": ({}, {}),
    "only one is known": (script("a.py", span=(1, 5)), {}),
    "folders differ": ({"original_path": "/x/a.py"}, {"original_path": "/y/a.py"}),
}


@pytest.mark.parametrize("name", UNRELATED)
def test_unrelated_traces_are_refused_in_one_sentence(name: str, tmp_path: Path) -> None:
    folder = tmp_path / "runs"
    paths = [write(folder / f"{at}.json", {**header, "pid": at}) for at, header in enumerate(UNRELATED[name])]
    for ask in (
        lambda: read_trace(folder),
        lambda: report_of([folder]),
        lambda: read_trace(paths),
        lambda: report_of(paths),
    ):
        with pytest.raises(TraceReadError, match="2 different runs") as caught:
            ask()
        assert caught.value.slug == "several-runs"
        assert f"memtrace report {paths[0]}" in (caught.value.hint or "")
        assert f"memtrace diff {paths[0]} {paths[1]}" in (caught.value.hint or "")


@pytest.mark.parametrize("name", RELATED)
def test_traces_of_one_run_are_read_as_one(name: str, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    for at, header in enumerate(RELATED[name]):
        write(folder / f"{at}.json", {**header, "pid": at})
    assert len(read_trace(folder).ranks) == 2
    assert len(report_of([folder]).ranks) == 2


def test_what_memtrace_wrote_as_a_run_folder_is_one_run(tmp_path: Path) -> None:
    # A program that starts two others, one after the other.
    for pid, header in ((7, script("a.py", span=(1, 5))), (8, script("b.py", span=(7, 9)))):
        write(tmp_path / "run" / f"process-{pid}.json.gz", {**header, "pid": pid})
    assert len(read_trace(tmp_path / "run").ranks) == 2


def test_file_of_several_processes_is_one_run(tmp_path: Path) -> None:
    path = write(tmp_path / "trace.json", script("a.py", span=(1, 5)), script("b.py", span=(7, 9)))
    assert len(read_trace(path).ranks) == 2


def test_snapshots_of_torch_say_nothing_of_their_run(tmp_path: Path) -> None:
    for name in ("a", "b"):
        snapshot().alloc(4096, 512).write(tmp_path / f"{name}.pickle")
    assert len(read_trace(tmp_path).ranks) == 2


def run(*words: str | Path) -> Result:
    return CliRunner().invoke(group, list(map(str, words)))


def test_each_run_is_counted_once_and_the_first_are_named(tmp_path: Path) -> None:
    for at in range(9):
        write(tmp_path / "many" / f"{at}.json", script(f"train{at // 2}.py", pid=at))
    result = run("report", tmp_path / "many")
    assert result.exit_code == 1
    assert "5 different runs" in result.stderr
    assert "train0.py (0.json), train1.py (2.json), train2.py (4.json) and 2 more" in result.stderr


@pytest.mark.parametrize(
    "words", ["merge {} -o {}.json", "whatif {} --as cuda", "check {} --budget peak=1GiB", "inspect {}"]
)
def test_other_commands_refuse_too(words: str, tmp_path: Path) -> None:
    folder = tmp_path / "runs"
    for at, header in enumerate(UNRELATED["other scripts"]):
        write(folder / f"{at}.json", header)
    result = run(*words.format(folder, folder).split())
    assert result.exit_code == 1
    assert "2 different runs" in result.stderr
