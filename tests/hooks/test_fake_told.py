"""What ranks tell each other from one run to the next, each a run of its own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

from memtrace.hooks.fake.cuda.told import Told
from memtrace.hooks.fake.events.assumptions import Assumptions
from memtrace.schema.options import PredictOptions
from memtrace.schema.predicted import ASKED_RANKS, RAN


def told(folder: Path | None, rank: int) -> Told:
    gpu = PredictOptions(
        gpu_name="a100-40gb",
        gpu_bytes=1,
        capability=(8, 0),
        num_steps=1,
        world_size=4,
        rank=rank,
        told_dir=None if folder is None else str(folder),
    )
    return Told(gpu, Assumptions(lambda _slug, _message: None), known=lambda one: one)


def test_messages_come_in_order_and_by_kind(tmp_path: Path) -> None:
    messages: list[Any] = [{"width": 3}, (1, 2), None]
    first, later = told(tmp_path, 0), told(tmp_path, 3)
    for one in messages:
        first.tell("a", one)
    first.tell("b", "another")
    assert later.next_of("b", (0,), "why") == "another"
    assert [later.next_of("a", (0,), "why") for _ in messages] == messages


def test_a_rank_that_waits_says_for_whom(tmp_path: Path) -> None:
    with pytest.raises(SystemExit):
        told(tmp_path, 2).next_of("a", (0, 1, 2), "why")
    assert json.loads((tmp_path / ASKED_RANKS).read_text(encoding="utf-8")) == [0, 1]
    with pytest.raises(SystemExit):
        told(None, 2).next_of("a", (0,), "why")


def test_nobody_waits_for_one_that_ran(tmp_path: Path) -> None:
    with pytest.raises(SystemExit):
        told(tmp_path, 2).next_if_told("a", 1, "why")
    (tmp_path / f"{RAN}1").touch()
    assert told(tmp_path, 2).next_if_told("a", 1, "why") is None
    told(tmp_path, 1).tell("a", [7])
    assert told(tmp_path, 2).next_if_told("a", 1, "why") == [7]
    assert told(None, 2).next_if_told("a", 1, "why") is None


def test_what_cannot_be_written_down_is_not_told(tmp_path: Path) -> None:
    told(tmp_path, 0).tell("a", lambda: None)
    with pytest.raises(SystemExit):
        told(tmp_path, 1).next_of("a", (0,), "why")


def test_the_rank_that_a_process_says_it_is(tmp_path: Path) -> None:
    one = told(tmp_path, 2)
    for given in (None, -1, 4, 2):
        one.is_rank(given)
        assert (one.rank, one.facts()) == (2, {})
    one.is_rank(0)
    assert (one.rank, one.facts()) == (0, {"rank": 0})
