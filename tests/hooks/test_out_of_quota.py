"""A user who is out of quota: the system refuses each write with an error of its own."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest

from memtrace.hooks.parts import spool as spool_module
from memtrace.hooks.parts.as_imported import system
from memtrace.hooks.parts.spool import Spool


def test_a_quota_costs_the_recording_only_and_is_said_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    spool = Spool(str(tmp_path / "t.json.parts"), rank=0, warn_once=said.append)
    spool.write({"k": "header"})
    spool.flush()

    def refused(*_args: object) -> int:
        raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))

    @contextmanager
    def unwritable(path: str) -> Iterator[SimpleNamespace]:
        Path(path).touch()
        yield SimpleNamespace(write=refused)

    monkeypatch.setattr(system, "write", refused)
    monkeypatch.setattr(spool_module, "open_private", unwritable)
    for number in range(3):
        assert not spool.write_chunk(number, iter([{"k": "chunk", "step": number}]))
    spool.write({"k": "step"})
    spool.flush()
    monkeypatch.undo()
    spool.close()
    (sentence,) = said
    assert os.strerror(errno.EDQUOT) in sentence
    kept = [json.loads(line)["k"] for line in Path(spool.main_path).read_bytes().splitlines()]
    assert kept[0] == "header", "what was there before stays"
    assert not list(tmp_path.rglob("*.tmp"))
