"""What comes up while a callback of ours begins, from where nothing can be raised, reaches the program."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from time import sleep
from types import FrameType, SimpleNamespace
from typing import Any

import pytest

from memtrace.hooks.failure.unraisable import UnraisableHook
from memtrace.hooks.torch_side.object_surges import ObjectSurges

Drop = Callable[[BaseException, Any], None]


@pytest.fixture
def passed_on(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """What the hook that was there before is called with, while ours is installed."""
    seen: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", seen.append)
    hook = UnraisableHook()
    hook.install()
    yield seen
    hook.uninstall()
    assert sys.unraisablehook == seen.append


def dropped(error: BaseException, function: Any) -> None:
    """Let Python drop an exception that a callback has raised, and go on for a while."""
    sys.unraisablehook(SimpleNamespace(exc_value=error, object=function))  # type: ignore[arg-type]
    for _ in range(3000):
        sleep(0.01)


def raised_by_a_handler() -> ValueError:
    """Return an exception that a handler of signals has raised."""

    def handler(_number: int, _frame: FrameType | None) -> None:
        raise ValueError("a time limit")

    try:
        # Python calls it with the frame that it interrupts.
        handler(14, sys._getframe())
    except ValueError as error:
        return error
    raise AssertionError


@pytest.mark.parametrize("make", [KeyboardInterrupt, raised_by_a_handler])
def test_what_is_meant_for_the_program_comes_up_in_it(passed_on: list[Any], make: Callable[[], BaseException]) -> None:
    error = make()
    with pytest.raises(type(error)) as caught:
        dropped(error, ObjectSurges(lambda: None).collected)
    assert caught.value is error
    assert passed_on == []


def test_a_failure_of_ours_is_silent(passed_on: list[Any], capsys: pytest.CaptureFixture[str]) -> None:
    unraisable = SimpleNamespace(exc_value=KeyError("ours"), object=ObjectSurges(lambda: None).collected)
    sys.unraisablehook(unraisable)  # type: ignore[arg-type]
    assert passed_on == []
    assert capsys.readouterr().err == ""


def test_what_the_program_drops_itself_is_passed_on(passed_on: list[Any]) -> None:
    unraisable = SimpleNamespace(exc_value=KeyError("of the program"), object=raised_by_a_handler)
    sys.unraisablehook(unraisable)  # type: ignore[arg-type]
    assert passed_on == [unraisable]
