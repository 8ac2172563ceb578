"""A run of twelve ranks, small enough for every test, and what `memtrace report` says of it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from memtrace.parallel.run import report_of
from memtrace.report.json.report import report_json
from tests.generated_ranks import write_ranks

NUM_RANKS = 12


@pytest.fixture(scope="session")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder, to be read only."""
    folder = tmp_path_factory.mktemp("ranks") / "run"
    write_ranks(folder, NUM_RANKS, num_events=200)
    return folder


@pytest.fixture
def own_ranks(ranks: Path, tmp_path: Path) -> Path:
    """The same run folder, to be changed."""
    folder = tmp_path / "run"
    shutil.copytree(ranks, folder)
    return folder


@pytest.fixture
def in_turn(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], bytes]:
    """A function that returns the JSON of a run folder whose files were read one after the other."""

    def read(folder: Path) -> bytes:
        with monkeypatch.context() as patch:
            patch.setattr("memtrace.parallel.run.SMALL_BYTES", 1 << 40)
            return report_json(report_of([folder]))

    return read


def damage(folder: Path, *numbers: int) -> None:
    """Cut off, scramble and empty files of some ranks in turn."""
    for at, number in enumerate(numbers):
        path = folder / f"rank-{number:05}.json.gz"
        content = path.read_bytes()
        path.write_bytes((content[: len(content) // 2], b"\x1f\x8b" + b"\xff" * 100, b"")[at % 3])
