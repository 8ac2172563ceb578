"""Which tests count as fast, and what becomes of a fast one that starts a process."""

from __future__ import annotations

import functools
import multiprocessing
import os
import subprocess
import sys
from collections.abc import Callable
from types import SimpleNamespace

import pytest

from tests.process.conftest import Workplace
from tests.starts_processes import STARTERS, Guard, starts_processes


def _runs_a_program() -> None:
    subprocess.run([sys.executable, "-c", ""], check=True)


def _forks() -> None:
    if not (pid := os.fork()):
        os._exit(0)
    os.waitpid(pid, 0)


def _spawns() -> None:
    process = multiprocessing.get_context("spawn").Process(target=len, args=((),))
    process.start()
    process.join()


def _by_way_of_another() -> None:
    [_forks() for _ in range(1)]


def _starts_nothing() -> None:
    sorted([2, 1])


def _item(*marks: str) -> pytest.Item:
    return SimpleNamespace(get_closest_marker=lambda name: name in marks or None)  # type: ignore[return-value]


@pytest.fixture
def guard(monkeypatch: pytest.MonkeyPatch) -> Guard:
    """A guard of its own, gone after the test."""
    for owner, name in STARTERS:
        monkeypatch.setattr(owner, name, getattr(owner, name))
    guard = Guard()
    guard.install()
    return guard


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (_runs_a_program, True),
        (_by_way_of_another, True),
        (Workplace, True),
        (functools.wraps(_forks)(lambda: None), True),
        (_starts_nothing, False),
    ],
)
def test_what_code_names_tells_whether_it_starts_processes(function: Callable[..., object], expected: bool) -> None:
    assert starts_processes(function) is expected


@pytest.mark.process
@pytest.mark.parametrize("start", [_runs_a_program, _forks, _spawns])
def test_a_fast_test_that_starts_a_process_fails(guard: Guard, start: Callable[[], None]) -> None:
    with pytest.raises(pytest.fail.Exception, match="without the mark"), guard.watching(_item()):
        start()
    with guard.watching(_item("process")):
        start()


def test_a_fast_test_that_starts_none_passes(guard: Guard) -> None:
    with guard.watching(_item()):
        _starts_nothing()
