"""One damaged rank of several, in a file, a run folder or a folder of parts, is named and must not cost the others."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from memtrace.cli import group
from memtrace.errors import TraceReadError
from memtrace.store.reading.read import read_trace
from memtrace.store.writing.trace import write_trace
from tests.builders import parts, rank_trace, trace_of

NUM_RANKS = 3
BAD = 1
Damage = Callable[[dict[str, Any]], object]

DAMAGES: dict[str, Damage] = {
    "a header of the wrong type": lambda rank: rank["header"].update(host={}),
    "no header": lambda rank: rank.pop("header"),
    "no source": lambda rank: rank["header"].pop("source"),
    "a column that is missing": lambda rank: rank["tables"]["events"].pop("action"),
    "columns of unequal length": lambda rank: rank["tables"]["events"]["size_bytes"].pop(),
    "a string that is not there": lambda rank: rank["tables"]["events"].update(action=[10**6] * 2),
    "a table that is a list": lambda rank: rank["tables"].update(steps=[1]),
}


def document() -> dict[str, Any]:
    """Return a trace file of several ranks, parsed."""
    events = [{"action": "alloc", "address": 512 * at, "size_bytes": 512} for at in (1, 2)]
    facts = {"world_size": NUM_RANKS, "host": "host"}
    ranks = [rank_trace({**facts, "rank": at, "pid": 10 + at}, events=events) for at in range(NUM_RANKS)]
    path = Path("ranks.json")
    write_trace(trace_of(*ranks), path)
    content: dict[str, Any] = json.loads(path.read_text())
    path.unlink()
    return content


@pytest.fixture
def damaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A trace file whose rank 1 is damaged, in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    content = document()
    DAMAGES["a header of the wrong type"](content["ranks"][BAD])
    (tmp_path / "run").mkdir()
    path = tmp_path / "run" / "trace.json"
    path.write_text(json.dumps(content))
    return path


@pytest.mark.parametrize("name", DAMAGES)
def test_damaged_rank_is_left_out_and_the_others_are_read(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    content = document()
    sound = len(read_of(content, tmp_path / "sound.json").ranks)
    assert sound == NUM_RANKS
    DAMAGES[name](content["ranks"][BAD])
    trace = read_of(content, tmp_path / "trace.json")
    assert [rank.rank for rank in trace.ranks] == [at for at in range(NUM_RANKS) if at != BAD]
    (said,) = [one.message for one in trace.warnings if one.slug == "file-unreadable"]
    # Without its header only the place in the file is known.
    assert said.startswith(f"process {BAD + 1} " if name == "no header" else f"rank {BAD} ")


def read_of(content: dict[str, Any], path: Path) -> Any:
    path.write_text(json.dumps(content))
    return read_trace(path)


def test_file_without_a_sound_rank_is_refused(damaged: Path) -> None:
    content = json.loads(damaged.read_text())
    for rank in content["ranks"]:
        rank["header"]["host"] = {}
    damaged.write_text(json.dumps(content))
    with pytest.raises(TraceReadError, match="host is not"):
        read_trace(damaged)


def run(*words: str | Path) -> Result:
    return CliRunner().invoke(group, list(map(str, words)))


@pytest.mark.parametrize("is_folder", [False, True])
@pytest.mark.parametrize(
    "words",
    [
        "whatif {} --as cuda --capacity 1GiB",
        "export {} --to perfetto -o out --force",
        "export {} --to speedscope -o out --force",
        "export {} --to csv -o out --force",
        "export {} --to csv --table events -o out --force",
        "inspect {}",
        "diff {} {}",
    ],
)
def test_every_command_names_the_damaged_rank_on_standard_error(damaged: Path, words: str, is_folder: bool) -> None:
    place = damaged.parent if is_folder else damaged
    result = run(*words.format(place, place).split())
    assert result.exit_code == 0, result.output
    assert f"rank {BAD} cannot be read" in result.stderr
    assert "rank 2" not in result.stderr


def test_report_and_check_say_so_in_their_answer(damaged: Path) -> None:
    assert f"rank {BAD} cannot be read" in " ".join(run("report", damaged).stdout.split())
    checked = run("check", damaged, "--budget", "peak=1GiB")
    # Whether the damaged rank keeps the budget is not known.
    assert checked.exit_code == 3
    assert f"rank {BAD} cannot be read" in " ".join(checked.stdout.split())


def test_merge_writes_the_others_and_keeps_the_warning(damaged: Path) -> None:
    result = run("merge", damaged.parent, "-o", "merged.json")
    assert result.exit_code == 0, result.output
    assert f"rank {BAD} cannot be read" in result.stderr
    merged = read_trace(Path("merged.json"))
    assert [rank.rank for rank in merged.ranks] == [at for at in range(NUM_RANKS) if at != BAD]
    assert any(f"rank {BAD} cannot be read" in one.message for one in merged.warnings)


def test_damaged_process_among_parts_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "trace.json.parts"
    parts(folder, "rank00000-host-7-0000").header(rank=0, pid=7).chunk([("alloc", 4096, 512)]).end()
    parts(folder, "rank00001-host-8-0000").header(rank=1, pid=8, host={}).end()
    for words in (("merge", folder, "-o", tmp_path / "merged.json"), ("inspect", folder)):
        result = run(*words)
        assert result.exit_code == 0, result.output
        assert "rank00001-host-8-0000 cannot be read" in result.stderr


def test_live_shows_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from memtrace.launch import live

    folder = tmp_path / "trace.json.parts"
    for rank in range(NUM_RANKS):
        parts(folder, f"rank{rank:05d}-host-{rank}-0000").header(rank=rank, pid=10 + rank)
    real = live._live_rank

    def of_rank(part: Any, *args: Any) -> Any:
        if part.header.get("rank") == BAD:
            raise ValueError("odd")
        return real(part, *args)

    monkeypatch.setattr(live, "_live_rank", of_rank)
    seen = live.Watch(str(folder)).look(10**18)
    assert [one.rank for one in seen.ranks if not one.warnings] == [at for at in range(NUM_RANKS) if at != BAD]
    (said,) = [warning.message for one in seen.ranks for warning in one.warnings]
    assert said.startswith(f"rank{BAD:05d}-host-{BAD}-0000 could not be read")
