"""The rolling window: a step is written before an older one goes, and nothing goes once writing has failed."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from memtrace.hooks.loop.window import Window
from memtrace.hooks.parts.chunk import EventBatch
from memtrace.hooks.parts.spool import Spool
from memtrace.schema.options import RecordOptions
from memtrace.schema.records import CHUNK_INFIX

LAST = 2


def batch(*_args: Any, **_kwargs: Any) -> EventBatch:
    return EventBatch("marks")


@pytest.fixture
def parts(tmp_path: Path) -> Path:
    return tmp_path / "t.json.parts"


@pytest.fixture
def spool(parts: Path) -> Spool:
    return Spool(str(parts), rank=None, warn_once=lambda _message: None)


@pytest.fixture
def window(parts: Path, spool: Spool) -> Window:
    sources: Any = SimpleNamespace(
        drain=batch,
        start=lambda frames=False: None,
        pause=lambda: None,
        cannot_switch=lambda: False,
        shrink_ring=lambda num_steps: None,
    )
    options = RecordOptions(parts_dir=str(parts), steps=f"last{LAST}")
    return Window(options, spool, sources, start_ns=0, on_lost=lambda _step: None)


def chunks(parts: Path) -> list[str]:
    return sorted(path.name for path in parts.glob(f"*{CHUNK_INFIX}*"))


def end_step(window: Window, step: int) -> None:
    window.chunk.phases.append(("forward", step, 0, step, step + 1, None))
    window.end_step(step)


def test_a_step_is_written_before_the_oldest_is_dropped(
    window: Window, spool: Spool, parts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_drops: list[int] = []
    is_told: list[bool] = []
    drop = spool.drop_chunk

    def seen(number: int) -> None:
        at_drops.append(len(chunks(parts)))
        is_told.append(f'"step":{step}}}' in Path(spool.main_path).read_text())
        drop(number)

    monkeypatch.setattr(spool, "drop_chunk", seen)
    num_steps = 6
    for step in range(num_steps):
        spool.write({"k": "step", "step": step})
        end_step(window, step)
    assert all(is_told)
    # Step 0 is kept for good, and while a step is dropped the one that takes its place is there.
    assert at_drops == [1 + LAST + 1] * (num_steps - 1 - LAST)
    assert len(chunks(parts)) == 1 + LAST


def test_nothing_is_dropped_once_a_step_could_not_be_written(window: Window, spool: Spool, parts: Path) -> None:
    for step in range(4):
        end_step(window, step)
    kept = chunks(parts)
    spool.give_up(OSError(28, "No space left on device"))
    for step in range(4, 9):
        end_step(window, step)
    assert chunks(parts) == kept


def test_a_chunk_of_nothing_but_our_own_work_is_written(window: Window, parts: Path) -> None:
    window.worked(1)
    window.drain("switch")
    (path,) = chunks(parts)
    assert '"own_work"' in (parts / path).read_text()
