"""Which tests a mutation run may use, and what each of them reaches: a plugin for one pytest run without faults.

Fast tests start no process and no browser. That is observed, not declared: an audit hook refuses every start of a
process and notes the test that tried.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Generator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from coverage import Coverage

# `multiprocessing` tells no audit hook that it starts a process, so that its folder must be named.
LEFT_OUT_FOLDERS = ("tests/process/", "tests/browser/", "tests/gpu/", "tests/mutants/", "tests/parallel/")
LEFT_OUT_MARKS = frozenset({"slow", "gpu", "browser"})
LEFT_OUT_FIXTURES = frozenset({"run_memtrace", "browser"})
STARTS_OF_PROCESSES = frozenset({"subprocess.Popen", "os.fork", "os.forkpty", "os.posix_spawn", "os.system", "os.exec"})


@dataclass
class ReachedByTest:
    """What was observed of one test."""

    nodeid: str
    seconds: float = 0.0
    """Time of the processor, which a busy machine does not lengthen."""
    passed: bool = False
    starts_process: bool = False
    contexts: list[str] = field(default_factory=list)
    """Its own context of coverage, and those of the shared fixtures that it uses."""


def is_candidate(item: pytest.Item) -> bool:
    """Return whether a test may be fast, judged by its folder, marks and fixtures."""
    return not (
        item.nodeid.startswith(LEFT_OUT_FOLDERS)
        or LEFT_OUT_MARKS & {mark.name for mark in item.iter_markers()}
        or LEFT_OUT_FIXTURES & set(getattr(item, "fixturenames", ()))
    )


def generate_only() -> None:
    """Have hypothesis draw the same examples each time, and not spend a minute on making a failing one smaller."""
    from hypothesis import Phase, settings

    settings.register_profile(
        "mutants", settings(), database=None, derandomize=True, phases=(Phase.explicit, Phase.generate)
    )
    settings.load_profile("mutants")


class ReachCollector:
    """Runs a share of the candidates under coverage, with one context for each test and for each shared fixture.

    A fixture that many tests share runs in the first of them only. Its lines are put down in a context of its own, or
    all the other tests would seem not to reach what it calls.
    """

    def __init__(self, coverage: Coverage, share: int, num_shares: int) -> None:
        self.coverage = coverage
        self.share, self.num_shares = share, num_shares
        self.tests: dict[str, ReachedByTest] = {}
        self.current: ReachedByTest | None = None
        sys.addaudithook(self._refuse_processes)

    def _refuse_processes(self, event: str, _args: tuple[object, ...]) -> None:
        if event in STARTS_OF_PROCESSES and self.current is not None:
            self.current.starts_process = True
            raise RuntimeError("a mutation run uses no test that starts a process")

    def pytest_collection(self) -> None:
        """Set hypothesis up after conftest.py did and before tests take its settings over."""
        generate_only()

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Keep this worker's share of the files."""
        files = sorted({item.path for item in items if is_candidate(item)})
        mine = set(files[self.share :: self.num_shares])
        items[:] = [item for item in items if item.path in mine and is_candidate(item)]

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, Any, Any]:
        """Give the test a context of its own."""
        self.current = self.tests[item.nodeid] = ReachedByTest(item.nodeid, contexts=[item.nodeid])
        self.coverage.switch_context(item.nodeid)
        began = time.process_time()
        try:
            return (yield)
        finally:
            self.current.seconds = time.process_time() - began
            self.current.contexts += _contexts_of_fixtures(item)
            self.current = None

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(self, fixturedef: pytest.FixtureDef[Any]) -> Generator[None, Any, Any]:
        """Put what a shared fixture reaches into a context that all its users have."""
        if fixturedef.scope == "function" or self.current is None:
            return (yield)
        self.coverage.switch_context(_context_of_fixture(fixturedef))
        try:
            return (yield)
        finally:
            self.coverage.switch_context(self.current.nodeid)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note whether the test passed."""
        test = self.tests[report.nodeid]
        if report.when == "call":
            test.passed = report.outcome == "passed"
        elif report.failed:
            test.passed = False


def _context_of_fixture(fixturedef: pytest.FixtureDef[Any]) -> str:
    return f"fixture {fixturedef.argname} of {fixturedef.func.__module__}"


def _contexts_of_fixtures(item: pytest.Item) -> list[str]:
    known = item._fixtureinfo.name2fixturedefs  # type: ignore[attr-defined]
    return [
        _context_of_fixture(fixturedef)
        for name in item.fixturenames  # type: ignore[attr-defined]
        for fixturedef in known.get(name, ())
        if fixturedef.scope != "function"
    ]
