"""Headers: a field of a wrong type is refused by name; a gzip of many members and a pipe do not hold a reader up."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path
from typing import Any

import pytest

from memtrace.errors import TraceReadError
from memtrace.schema.tables import RANK_HEADER
from memtrace.store.header import MAX_DEPTH
from memtrace.store.reading.read import read_trace
from memtrace.store.writing.trace import trace_bytes
from tests.builders import rank_trace, trace_of


def document() -> dict[str, Any]:
    built: dict[str, Any] = json.loads(trace_bytes(trace_of(rank_trace(events=[{"action": "alloc", "address": 1}]))))
    return built


def refusal(tmp_path: Path, content: dict[str, Any]) -> str:
    path = tmp_path / "trace.json"
    path.write_text(json.dumps(content))
    with pytest.raises(TraceReadError) as caught:
        read_trace(path)
    return caught.value.message


@pytest.mark.parametrize("name", [field.name for field in RANK_HEADER])
def test_header_field_of_a_wrong_type_is_named(tmp_path: Path, name: str) -> None:
    content = document()
    content["ranks"][0]["header"][name] = [[1]]
    assert name in refusal(tmp_path, content)


@pytest.mark.parametrize("name", ["rank", "world_size", "pid"])
@pytest.mark.parametrize("value", [-1, 2**62, True])
def test_number_of_a_process_has_a_range(tmp_path: Path, name: str, value: object) -> None:
    content = document()
    content["ranks"][0]["header"][name] = value
    assert name in refusal(tmp_path, content)


def test_string_that_stands_twice_is_refused(tmp_path: Path) -> None:
    content = document()
    content["strings"] += content["strings"][:1]
    assert "strings" in refusal(tmp_path, content)


def test_gzip_of_many_members_reads_as_one(tmp_path: Path) -> None:
    path = tmp_path / "trace.json.gz"
    text = json.dumps(document()).encode()
    path.write_bytes(gzip.compress(text[:50]) + gzip.compress(b"") * 20_000 + gzip.compress(text[50:]))
    assert read_trace(path).ranks[0].num_events == 1


def test_pipe_is_refused_before_it_is_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(TraceReadError, match="not a regular file"):
        read_trace(tmp_path / "pipe")


def test_header_field_that_is_nested_without_end_is_named(tmp_path: Path) -> None:
    content = document()
    deep: list[Any] = []
    for _ in range(MAX_DEPTH + 1):
        deep = [deep]
    for header in (content["ranks"][0]["header"], content["header"]):
        for name in ("environment", "unknown"):
            header[name] = {"a": deep}
            assert f"{name} is nested deeper than" in refusal(tmp_path, content)
            del header[name]
