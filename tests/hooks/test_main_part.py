"""Records of the main part that stand once, and the last one."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from memtrace.hooks.loop.main_part import Writer
from memtrace.hooks.parts.spool import Spool


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return Spool(str(tmp_path / "t.json.parts"), rank=None)


@pytest.fixture
def writer(spool: Spool) -> Writer:
    return Writer(spool, redact=False)


def written(spool: Spool) -> list[dict[str, Any]]:
    """Return what is on disk."""
    path = Path(spool.main_path)
    return [json.loads(line) for line in path.read_bytes().splitlines()] if path.exists() else []


def test_the_end_is_on_disk_and_the_file_closed(writer: Writer, spool: Spool) -> None:
    writer.warn("some", "words")
    assert written(spool) == []
    writer.end()
    *_, last = written(spool)
    assert (last["k"], last["complete"]) == ("end", True)
    assert spool._file is None


def test_a_note_stands_once_and_a_warning_each_time(writer: Writer, spool: Spool) -> None:
    for _ in range(2):
        writer.note("noted", "words")
        writer.warn("warned", "words")
    writer.flush()
    assert [(one["slug"], one["count"]) for one in written(spool)] == [("noted", 1), ("warned", 1), ("warned", 1)]


def test_lost_events_are_told_once_a_step(writer: Writer, spool: Spool) -> None:
    for step in (3, 3, 4):
        writer.note_lost(step)
    writer.flush()
    assert [one["step"] for one in written(spool)] == [3, 4]


def facts(spool: Spool) -> list[dict[str, Any]]:
    """Return the facts on disk."""
    return [
        {name: value for name, value in one.items() if name != "k"} for one in written(spool) if one["k"] == "facts"
    ]


@pytest.mark.parametrize("is_old", [False, True], ids=["torch", "torch before 2.4"])
def test_each_dtype_under_autocast_is_told_once(writer: Writer, spool: Spool, is_old: bool) -> None:
    enabled = {"cuda": "torch.float16"}

    def is_autocast_enabled(kind: str) -> bool:
        if is_old:
            raise TypeError("takes no arguments")
        return kind in enabled

    torch = SimpleNamespace(is_autocast_enabled=is_autocast_enabled, get_autocast_dtype=lambda kind: enabled[kind])
    writer.note_autocast(torch)
    writer.note_autocast(torch)
    enabled["cpu"] = "torch.bfloat16"
    writer.note_autocast(torch)
    writer.flush()
    told = [{"autocast_dtypes": ["float16"]}, {"autocast_dtypes": ["bfloat16", "float16"]}]
    assert facts(spool) == ([] if is_old else told)


@pytest.mark.parametrize(
    ("rank", "is_available", "is_initialized", "told"),
    [
        (None, True, True, [{"rank": 2, "world_size": 4}]),
        (0, True, True, []),
        (None, False, True, []),
        (None, True, False, []),
    ],
)
def test_a_process_group_tells_the_rank_that_the_environment_did_not(
    writer: Writer, spool: Spool, rank: int | None, is_available: bool, is_initialized: bool, told: list[dict[str, int]]
) -> None:
    writer._rank = rank
    distributed = SimpleNamespace(
        is_available=lambda: is_available,
        is_initialized=lambda: is_initialized,
        get_rank=lambda: 2,
        get_world_size=lambda: 4,
    )
    for _ in range(2):
        writer.note_distributed(SimpleNamespace(distributed=distributed))
    writer.note_distributed(SimpleNamespace())
    writer.flush()
    assert facts(spool) == told
