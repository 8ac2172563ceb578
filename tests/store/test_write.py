"""Writing and reading back: the same trace, the same bytes, whole files only."""

from __future__ import annotations

import errno
import gzip
import json
import os
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from memtrace.errors import OutputError
from memtrace.schema.tables import TABLES, Column
from memtrace.store.columns import MAX_TIME_NS, MIN_TIME_NS
from memtrace.store.reading.read import read_trace
from memtrace.store.snapshots.torch_snapshot import read_snapshot
from memtrace.store.trace import LoadWarning, RankTrace, Trace
from memtrace.store.trace_file import read_trace_document
from memtrace.store.writing.trace import trace_bytes, write_trace
from tests.builders import contents, rank_trace, snapshot, trace_of

TEXT = st.text('ab\x00\x1b\n"</\u2028é😀', max_size=5)
INTEGERS = st.integers(-(2**62), 2**62)
OF_UNIT = {"bytes": st.integers(0, 2**59), "ns": st.integers(MIN_TIME_NS, MAX_TIME_NS - 1)}


def cell(column: Column) -> st.SearchStrategy[Any]:
    """Return values that a column may hold, references to other rows left out."""
    if column.unit.startswith("row of "):
        return st.none() if column.nullable else st.just(0)
    values: st.SearchStrategy[Any] = {
        "string": TEXT,
        "bool": st.booleans(),
        "int": OF_UNIT.get(column.unit, INTEGERS),
    }[column.kind]
    return st.none() | values if column.nullable else values


ROWS = {
    table.name: st.lists(st.fixed_dictionaries({one.name: cell(one) for one in table.columns}), max_size=3)
    for table in TABLES
    if table.name not in ("windows", "initial_blocks", "warnings")
}


@st.composite
def ranks(draw: st.DrawFn) -> RankTrace:
    rows: dict[str, list[dict[str, Any]]] = {}
    for name in sorted(draw(st.sets(st.sampled_from(sorted(ROWS))))):
        rows[name] = draw(ROWS[name])
    # Rows that point to others need one to point to.
    for name, target in (("stacks", "frames"), ("blocks", "segments")):
        if not rows.get(target):
            rows.pop(name, None)
    rows["windows"] = []
    warnings = draw(st.lists(st.builds(LoadWarning, slug=TEXT, message=TEXT, count=st.integers(1, 9)), max_size=2))
    header = draw(st.dictionaries(TEXT, st.none() | TEXT | INTEGERS, max_size=3))
    return rank_trace({**header, "rank": draw(st.none() | st.integers(0, 4))}, warnings=warnings, **rows)


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(ranks(), max_size=2))
def test_reading_what_was_written_gives_the_same_trace_and_then_the_same_bytes(built: list[RankTrace]) -> None:
    trace = Trace(header={"command": ["a", "b"]}, ranks=tuple(built), path="built")
    content = trace_bytes(trace)
    again = read_trace_document(json.loads(content), where="written")
    assert again.header == trace.header
    assert [contents(rank) for rank in again.ranks] == [contents(rank) for rank in built]
    assert trace_bytes(again) == content


@pytest.mark.parametrize("name", ["trace.json", "trace.json.gz"])
def test_file_reads_back_and_is_the_same_each_time(tmp_path: Path, name: str) -> None:
    rank = read_snapshot(snapshot().alloc(4096, 9, frames=[("é\x1b</script>.py", 1, "f")]).build(), where="built")
    write_trace(trace_of(rank), tmp_path / name)
    write_trace(trace_of(rank), tmp_path / f"other-{name}")
    first, second = (tmp_path / name).read_bytes(), (tmp_path / f"other-{name}").read_bytes()
    assert first == second
    assert first.startswith(b"\x1f\x8b") == name.endswith(".gz")
    assert contents(read_trace(tmp_path / name).ranks[0]) == contents(rank)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([name, f"other-{name}"])


def test_warnings_of_a_trace_survive(tmp_path: Path) -> None:
    warning = LoadWarning(slug="file-unreadable", message="one of them", count=3)
    write_trace(Trace(header={}, ranks=(rank_trace(),), path="", warnings=(warning,)), tmp_path / "t.json")
    assert read_trace(tmp_path / "t.json").warnings == (warning,)


def test_strings_that_no_column_uses_are_not_written() -> None:
    rank = read_snapshot(snapshot().alloc(1, 1).build(), where="built")
    used = json.loads(trace_bytes(trace_of(rank)))["strings"]
    assert "inactive" not in used
    assert "alloc" in used


def test_disk_that_fills_leaves_the_old_file_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "t.json.gz"
    write_trace(trace_of(rank_trace()), path)
    before = path.read_bytes()

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError, match="No space left"):
        write_trace(trace_of(rank_trace({"rank": 1})), path)
    assert path.read_bytes() == before
    assert [one.name for one in tmp_path.iterdir()] == ["t.json.gz"]
    gzip.decompress(before)


def test_folder_that_is_not_there_is_an_output_error(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="cannot be written"):
        write_trace(trace_of(rank_trace()), tmp_path / "nowhere" / "t.json")


def test_text_that_is_not_utf_8_in_a_header_is_written_with_question_marks() -> None:
    from memtrace.store.writing.trace import _header

    header = {"argv": ["a\udc80"], "host": {"\udc80": ("b", 1)}}

    assert orjson.loads(orjson.dumps(_header(header))) == {"argv": ["a?"], "host": {"?": ["b", 1]}}
