"""What the program raises while a hook runs, by a signal's handler or from another thread, reaches the program."""

from __future__ import annotations

import ctypes
import functools
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

import pytest

from memtrace.hooks.torch_side.guard import Guard


class Late(Exception):
    """Of the program."""


def late(number: int, frame: FrameType | None) -> None:
    raise Late("too late")


def late_as_of_python(*_: object) -> None:
    raise TimeoutError(f"after {3} s")


class Limit:
    def handle(self, number: int, frame: FrameType | None) -> None:
        # Whoever is registered by now is not who raised.
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        raise OSError(number)


def late_for(seconds: int, number: int, frame: FrameType | None) -> None:
    late(number, frame)


HANDLERS: dict[str, Callable[..., Any]] = {
    "function": late,
    "any-arguments": late_as_of_python,
    "method": Limit().handle,
    "partial": functools.partial(late_for, 3),
}


@pytest.fixture
def told() -> list[str]:
    return []


@pytest.fixture
def guard(told: list[str]) -> Guard:
    return Guard(lambda _, message: told.append(message), lambda: False)


@pytest.fixture(autouse=True)
def handler_as_before() -> Iterator[None]:
    before = signal.getsignal(signal.SIGALRM)
    yield
    signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("name", HANDLERS)
def test_what_a_handler_raises_inside_a_hook_reaches_the_program(guard: Guard, told: list[str], name: str) -> None:
    signal.signal(signal.SIGALRM, HANDLERS[name])
    hook = guard.wrap(lambda: signal.raise_signal(signal.SIGALRM), name="hook")
    with pytest.raises((Late, OSError)):
        hook()
    assert told == []
    assert not guard.active


def test_what_another_thread_sets_inside_a_hook_reaches_the_program(guard: Guard, told: list[str]) -> None:
    def struck() -> None:
        ident = ctypes.c_ulong(threading.get_ident())
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ident, ctypes.py_object(TimeoutError))
        for _ in range(1000):
            pass

    with pytest.raises(TimeoutError):
        guard.wrap(struck, name="hook")()
    assert told == []


def test_what_objects_of_the_program_raise_when_they_are_asked_is_ours(guard: Guard, told: list[str]) -> None:
    def asked(frame: object) -> None:
        raise Late("of a property")

    guard.wrap(lambda: asked(None), name="hook")()
    assert told == ["hook failed: Late: of a property"]
