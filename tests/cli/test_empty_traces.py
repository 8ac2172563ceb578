"""A trace in which no memory was recorded, or not even a rank, is told of in a sentence, whatever is asked."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from memtrace.cli import group
from memtrace.store.trace import RankTrace
from memtrace.store.writing.trace import write_trace
from tests.builders import rank_trace, snapshot, trace_of

QUESTIONS = (
    "report {0}",
    "report {0} --json",
    "report {0} --html {0}.html",
    "diff {0} {0}",
    "check {0} --budget peak=1GiB",
    "whatif {0} --as cuda",
    "inspect {0}",
    "export {0} --to perfetto -o {0}.perfetto",
    "export {0} --to memory-viz -o {0}.pickle",
    "export {0} --to speedscope -o {0}.speedscope",
    "export {0} --to csv -o {0}.csv",
    "estimate --preset gpt2 --against {0}",
)


def ask(words: str) -> None:
    result = CliRunner().invoke(group, words.split())
    assert result.exception is None or isinstance(result.exception, SystemExit), words
    assert "bug in memtrace" not in result.output, words
    assert result.exit_code == 0 or "error: " in result.stderr


@pytest.mark.parametrize("words", QUESTIONS)
@pytest.mark.parametrize("ranks", [(), (rank_trace(),), (rank_trace({"devices": [{"name": "cuda:0"}]}),)])
def test_trace_without_memory(words: str, ranks: tuple[RankTrace, ...], tmp_path: Path) -> None:
    write_trace(trace_of(*ranks), tmp_path / "trace.json")
    ask(words.format(tmp_path / "trace.json"))


@pytest.mark.parametrize("words", QUESTIONS)
def test_snapshot_without_memory(words: str, tmp_path: Path) -> None:
    snapshot().write(tmp_path / "snapshot.bin")
    ask(words.format(tmp_path / "snapshot.bin"))
