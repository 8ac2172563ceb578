"""Fixtures that more than one part of the tests needs."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

from tests.leftovers import watch
from tests.starts_processes import Guard, mark

if TYPE_CHECKING:
    from playwright.sync_api import Browser

# How long an example takes says how busy the machine is; speed is measured in benchmarks/.
settings.register_profile("memtrace", deadline=None)
settings.load_profile("memtrace")

ROOT = Path(__file__).parent.parent
RunMemtrace = Callable[..., "subprocess.CompletedProcess[str]"]
_guard = Guard()


def pytest_configure() -> None:
    """Let torch compute with one thread, here and in every program that tests run, and listen for such programs.

    The tests run in as many processes as there are cores, and their tensors are small: more threads only wait in turns.
    """
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    # oneDNN takes scratch memory by the instructions of the processor; what is expected to the byte must not.
    os.environ.setdefault("ONEDNN_MAX_CPU_ISA", "AVX2")
    _guard.install()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests that start processes or open pages, which `make test-fast` leaves out."""
    for item in items:
        mark(item, ROOT / "tests")


def pytest_collection_finish() -> None:
    """Keep what is loaded by now, torch among it, out of every later collection of garbage."""
    gc.collect()
    gc.freeze()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item: pytest.Item) -> Iterator[None]:
    """Fail a fast test whose fixtures start a process."""
    with _guard.watching(item):
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    """Fail a fast test that starts a process."""
    with _guard.watching(item):
        return (yield)


@pytest.fixture(autouse=True)
def nothing_left_behind() -> Iterator[None]:
    """Fail a test that leaves a hook, a profiler, a handler or a patched attribute behind."""
    yield from watch()


@pytest.fixture(scope="session")
def repo_root() -> Path:
    """The root of the checkout."""
    return ROOT


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real recordings beside the checkout; they are not ours to ship, so it may be absent."""
    return beside_checkout("data", "the real recordings")


@pytest.fixture(scope="session")
def reported_programs() -> Path:
    """The folder of programs with faults that people reported, beside the checkout; it may be absent as well."""
    return beside_checkout("cases/diagnosis", "the programs that people reported")


@pytest.fixture(scope="session")
def recorded_programs() -> Path:
    """The folder of programs that were recorded wrongly once, beside the checkout; it may be absent as well."""
    return beside_checkout("cases/record", "the programs that were recorded wrongly")


def beside_checkout(name: str, what: str) -> Path:
    """Return a folder of what is not ours to ship; where it is absent, skip the test."""
    folder = ROOT.parent / "shared" / name
    if not folder.is_dir():
        pytest.skip(f"{what} are not at ../shared/{name}")
    return folder


@pytest.fixture(scope="session")
def run_memtrace() -> RunMemtrace:
    """A function that runs `python -m memtrace ARGS` in a process of its own and returns what came of it.

    Keywords go to `subprocess.run`; `env` is added to the environment of the tests.
    """

    def run(*args: str | Path, **options: object) -> subprocess.CompletedProcess[str]:
        settings = {"capture_output": True, "text": True, "timeout": 240, **options}
        settings["env"] = {**os.environ, **(options.get("env") or {})}  # type: ignore[dict-item]
        return subprocess.run([sys.executable, "-m", "memtrace", *map(str, args)], **settings)  # type: ignore[call-overload,no-any-return]

    return run


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """A headless Chromium. None in CI is a failure, since the tests of every page would silently be left out."""
    from playwright.sync_api import sync_playwright

    from tests.find_browser import FLAGS, installed_browser

    path = installed_browser()
    if path is None:
        missing = pytest.fail if os.environ.get("CI") else pytest.skip
        missing("no Chromium: run `python tests/ensure_browser.py`")
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=path, args=list(FLAGS))
        yield running
        running.close()
