"""Which tests start processes, told from their code, and a guard against those that start one and were not told.

`make test-fast` leaves out what is marked `process`. Nobody keeps that list: a test is marked if it lies in a folder
whose tests all run programs, or if its function, a fixture that it uses, or a function of the tests that these name,
names one of the ways to start a process. What starts one inside memtrace cannot be seen so and bears the mark in its
file; the guard fails it otherwise.
"""

from __future__ import annotations

import functools
import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing import util
from pathlib import Path
from types import CodeType, FunctionType, ModuleType

import pytest

FOLDERS = ("process", "browser", "gpu")
"""Folders of tests that all run programs, open pages, or need a device."""
WAYS = frozenset({"subprocess", "Popen", "multiprocessing", "ProcessPoolExecutor", "fork", "runpytest_subprocess"})
"""Names that code has to use to start a process by itself."""
MARKS = ("process", "browser", "slow", "gpu")
"""A test with one of these is not a fast one."""
STARTERS = (
    (subprocess.Popen, "__init__"),
    (util, "spawnv_passfds"),
    *((os, name) for name in ("fork", "forkpty", "posix_spawn", "posix_spawnp", "system") if hasattr(os, name)),
)
"""What every way to start a process comes to; multiprocessing spawns by the second."""


def mark(item: pytest.Item, tests: Path) -> None:
    """Mark a test as what its folder, its fixtures and its code say."""
    fixtures = getattr(item, "fixturenames", ())
    if "browser" in fixtures:
        item.add_marker("browser")
    if item.path.relative_to(tests).parts[0] in FOLDERS or any(map(starts_processes, _functions_of(item))):
        item.add_marker("process")


def _functions_of(item: pytest.Item) -> Iterator[Callable[..., object]]:
    """Yield the function of a test and those of the fixtures that it uses."""
    function = getattr(item, "function", None)
    if function is not None:
        yield function
    # The fixtures as pytest resolved them for this test: there is no public way to ask.
    for definitions in getattr(getattr(item, "_fixtureinfo", None), "name2fixturedefs", {}).values():
        for definition in definitions:
            if definition.func.__module__.startswith("tests."):
                yield definition.func


def starts_processes(function: Callable[..., object]) -> bool:
    """Return whether a function, or one of the tests' functions and classes that it names, names a way to do so."""
    seen: set[int] = set()
    waiting: list[object] = [function]
    while waiting:
        one = waiting.pop()
        one = getattr(one, "__wrapped__", one)
        if id(one) in seen:
            continue
        seen.add(id(one))
        if isinstance(one, type):
            waiting += [value for value in vars(one).values() if isinstance(value, FunctionType)]
        elif isinstance(one, FunctionType):
            names = _names(one.__code__)
            if names & WAYS:
                return True
            waiting += [value for name in names if _is_of_the_tests(value := one.__globals__.get(name))]
            waiting += [value for module in _modules(one, names) for name in names if (value := vars(module).get(name))]
    return False


def _names(code: CodeType) -> set[str]:
    """Return the names that code and the functions within it use, as globals, attributes or imports."""
    inner = (constant for constant in code.co_consts if isinstance(constant, CodeType))
    return set(code.co_names).union(*map(_names, inner))


def _is_of_the_tests(value: object) -> bool:
    module = getattr(value, "__module__", None) or ""
    return isinstance(value, FunctionType | type) and module.startswith(("tests.", "benchmarks."))


def _modules(function: FunctionType, names: set[str]) -> list[ModuleType]:
    """Return the modules of the tests that a function names."""
    values = [function.__globals__.get(name) for name in names]
    return [one for one in values if isinstance(one, ModuleType) and one.__name__.startswith("tests.")]


class Guard:
    """Fails a fast test that starts a process.

    An audit hook would hear of all of it, but of every class that a pickle names too: it doubles the time of unpickling
    a snapshot, and so of many tests.
    """

    def __init__(self) -> None:
        self._started: list[str] | None = None

    def install(self) -> None:
        """Listen from now on."""
        for owner, name in STARTERS:
            setattr(owner, name, self._heard(getattr(owner, name)))

    def _heard(self, starter: Callable[..., object]) -> Callable[..., object]:
        @functools.wraps(starter)
        def start(*args: object, **options: object) -> object:
            if self._started is not None:
                # Not the Popen itself: before its __init__ has run it cannot even be printed.
                what = [one for one in args if not isinstance(one, subprocess.Popen)]
                self._started.append(f"{starter.__qualname__} {what[:1]}")
            return starter(*args, **options)

        return start

    @contextmanager
    def watching(self, item: pytest.Item) -> Iterator[None]:
        """Fail a test without the marks if it starts a process within this block."""
        if any(item.get_closest_marker(name) for name in MARKS):
            yield
            return
        self._started = []
        try:
            yield
            started = self._started
        finally:
            self._started = None
        if started:
            pytest.fail(f"starts a process without the mark `process`: {started[0]}", pytrace=False)
