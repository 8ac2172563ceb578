"""How often a history is replayed with what the pass before it inferred."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from memtrace.allocator import replay
from memtrace.allocator.history import History, read_history
from tests.allocator.test_replay import random_recording, read


def passes_of(left_wrong: list[int], monkeypatch: pytest.MonkeyPatch) -> int:
    """Return how many passes are made where each infers something and leaves so many events unexplained."""
    history: History = read_history(read(random_recording("", 1).snapshot()), "cuda:0")
    made: list[Any] = []

    def one_pass(*_: Any, **__: Any) -> Any:
        wrong = left_wrong[min(len(made), len(left_wrong) - 1)]
        is_last = len(made) == len(left_wrong) - 1 and wrong == 0
        made.append(
            SimpleNamespace(
                run=lambda: None,
                given_up_at=None,
                wrong=set(range(wrong)),
                told_by={} if is_last else {len(made): len(made)},
            )
        )
        return made[-1]

    monkeypatch.setattr(replay, "Replayer", one_pass)
    replay._with_inference(SimpleNamespace(history=history), infer_until=len(history.rows))  # type: ignore[arg-type]
    return len(made)


def test_a_pass_may_tell_of_what_only_the_next_can_use(monkeypatch: pytest.MonkeyPatch) -> None:
    assert passes_of([2, 2, 0], monkeypatch) == 3
    assert passes_of([3, 2, 4, 2, 1, 0], monkeypatch) == 6


def test_passes_end_where_what_is_inferred_explains_nothing_more(monkeypatch: pytest.MonkeyPatch) -> None:
    assert passes_of([5], monkeypatch) < replay._MAX_PASSES
