"""Programs that do to their process what programs do: recorded, each ends, prints and writes as it does bare.

A row is a program and a way to run it (`programs/`). It is run bare and recorded, each in a folder of its own, and
compared are exit status or signal, stdout (losses to the bit), stderr, and every file that it leaves with its mode.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest

from memtrace.store.parts.folder import read_parts
from memtrace.store.reading.read import read_trace
from memtrace.store.trace import RankTrace
from tests.process.conftest import split_said
from tests.process.programs import (
    checkpoints,
    descriptors,
    endings,
    forks,
    loops,
    process_state,
    python_state,
    starts,
    symbolic,
    workers,
    wrapped_calls,
)
from tests.process.programs.row import PARTS, Row, run, without_one_line

GROUPS = (
    *(endings, descriptors, forks, workers, starts, python_state, process_state, wrapped_calls, symbolic),
    *(loops, checkpoints),
)
LAUNCHER = (sys.executable, "-m", "memtrace", "record", "-o", "t.json", "--")
ROWS = [row for group in GROUPS for row in group.ROWS]


@pytest.mark.parametrize("row", [pytest.param(row, id=row.name) for row in ROWS])
def test_recorded_is_bare(tmp_path: Path, row: Row) -> None:
    bare = run(tmp_path / "bare", row, is_recorded=False)
    recorded = run(tmp_path / "recorded", row, is_recorded=True)
    if row.says is not None:
        recorded = replace(recorded, stderr=without_one_line(recorded.stderr, "memtrace: " + row.says))
    assert recorded == bare
    ranks, _ = read_parts(tmp_path / "recorded" / PARTS)
    assert len(ranks) == row.num_processes or row.num_processes is None
    assert any(1 in rank.table("steps")["step"] for rank in ranks) or not row.trains
    assert [one for rank in ranks for one in failures(rank)] == []


BY_A_LAUNCHER = [
    *("returns", "exits-hard", "raises-in-torch", "is-terminated", "aborts", "reads-stdin"),
    *("its-folder-removed", "umask", "every-descriptor-closed-and-stderr-a-file"),
]


@pytest.mark.parametrize("name", BY_A_LAUNCHER)
def test_the_launcher_adds_its_own_last_lines_and_nothing_else(tmp_path: Path, name: str) -> None:
    (row,) = [row for row in ROWS if row.name == name]
    bare = run(tmp_path / "bare", row, is_recorded=False)
    recorded = run(tmp_path / "recorded", row, is_recorded=True, launcher=LAUNCHER)
    own, said = split_said(recorded.stderr.encode())
    assert replace(recorded, stderr=own.decode()) == bare
    assert said.startswith("Wrote t.json")


def test_forks_that_train_are_counted(tmp_path: Path) -> None:
    source = "import os\ntrain(1)\nfor number in range(3):\n    if os.fork() == 0:\n"
    source += "        train(number)\n        os._exit(0)\n    os.wait()"
    recorded = run(tmp_path / "recorded", Row("forks", source), is_recorded=True, launcher=LAUNCHER)
    # The first of them makes no step.
    assert "\nmemtrace: 2 forked processes trained and left no record" in recorded.stderr
    (warning,) = read_trace(tmp_path / "recorded/t.json").warnings
    assert (warning.slug, warning.count) == ("forks-not-recorded", 2)


def failures(rank: RankTrace) -> list[str]:
    """Return what hooks said of their own failures."""
    return [one.message for one in rank.warnings if one.slug in ("hook-failed", "chunk-unreadable", "lines-damaged")]


def test_the_table_is_long_and_its_names_differ() -> None:
    names = [row.name for row in ROWS]
    assert len(set(names)) == len(names) >= 60
