"""Running the tests against faults, each in a fork, several at a time."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest

from tests.mutants.fast_tests import generate_only
from tests.mutants.faults import Fault
from tests.mutants.fork import fork, replace_module, run_pytest

Verdict = Literal["killed", "timed out", "survived", "not reached"]
START_S = 30.0
"""What a run may take beyond twenty times its tests: the imports, on a busy machine."""
FIRST_FILES = 6
"""Files of tests that are imported first."""


@dataclass(frozen=True, kw_only=True)
class Trial:
    """A fault, and what the tests said of it."""

    fault: Fault
    verdict: Verdict
    num_tests: int
    killer: str | None = None
    """The test that failed first; None where the module could not even be imported."""


@dataclass(frozen=True, kw_only=True)
class _Running:
    fault: Fault
    num_tests: int
    deadline: float
    killer_file: Path


class ChosenTests:
    """A pytest plugin that runs the given tests in the given order, and writes the first failing one down."""

    def __init__(self, nodeids: Sequence[str], killer_file: Path) -> None:
        self.order = {nodeid: place for place, nodeid in enumerate(nodeids)}
        self.killer_file = killer_file

    def pytest_collection(self) -> None:
        """Set hypothesis up as it was when the tests were chosen."""
        generate_only()

    @pytest.hookimpl(wrapper=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> Generator[None, Any, Any]:
        """Keep the chosen tests."""
        result = yield
        items[:] = sorted(
            (item for item in items if item.nodeid in self.order), key=lambda item: self.order[item.nodeid]
        )
        return result

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Name the test that found the fault."""
        if report.failed and not self.killer_file.exists():
            self.killer_file.write_text(report.nodeid)


def start_tests(copy: Path, fault: Fault | None, nodeids: Sequence[str], killer_file: Path) -> int:
    """Start the tests in a fork, against a fault or against the sources as they are; return its process id."""

    def work() -> int:
        if fault is not None:
            replace_module(copy, fault.source.path, fault.text)
        stop = [] if fault is None else ["-x"]
        status = int(pytest.ExitCode.OK)
        for part in _parts(nodeids):
            status = run_pytest(copy, [*stop, *_files(part)], ChosenTests(part, killer_file))
            if status != pytest.ExitCode.OK:
                break
        return status

    return fork(copy, killer_file.with_suffix(".log"), work)


def _parts(nodeids: Sequence[str]) -> list[Sequence[str]]:
    """Return the tests of the first few files, and the rest: most faults are found before all files are imported."""
    first = _files(nodeids)[:FIRST_FILES]
    count = next((at for at, nodeid in enumerate(nodeids) if _file_of(nodeid) not in first), len(nodeids))
    return [part for part in (nodeids[:count], nodeids[count:]) if part]


def _files(nodeids: Sequence[str]) -> list[str]:
    return list(dict.fromkeys(map(_file_of, nodeids)))


def _file_of(nodeid: str) -> str:
    return nodeid.split("::")[0]


def try_faults(copy: Path, chosen: Sequence[tuple[Fault, list[str], float]], jobs: int) -> Iterator[Trial]:
    """Run the tests chosen for each fault, of which we know how long they take, and yield what came of each."""
    running: dict[int, _Running] = {}
    waiting = list(enumerate(chosen))[::-1]
    while waiting or running:
        while waiting and len(running) < jobs:
            number, (fault, nodeids, seconds) = waiting.pop()
            if not nodeids:
                yield Trial(fault=fault, verdict="not reached", num_tests=0)
                continue
            killer_file = copy.parent / f"fault-{number}.killer"
            process = start_tests(copy, fault, nodeids, killer_file)
            deadline = time.monotonic() + START_S + 20 * seconds
            running[process] = _Running(fault=fault, num_tests=len(nodeids), deadline=deadline, killer_file=killer_file)
        yield from _ended(running)
        time.sleep(0.02)


def _ended(running: dict[int, _Running]) -> Iterator[Trial]:
    for process, run in list(running.items()):
        done, status = os.waitpid(process, os.WNOHANG)
        verdict: Verdict
        if done:
            verdict = "survived" if os.waitstatus_to_exitcode(status) == pytest.ExitCode.OK else "killed"
        elif time.monotonic() > run.deadline:
            os.killpg(process, signal.SIGKILL)
            os.waitpid(process, 0)
            verdict = "timed out"
        else:
            continue
        del running[process]
        killer = run.killer_file.read_text() if run.killer_file.exists() else None
        yield Trial(fault=run.fault, verdict=verdict, num_tests=run.num_tests, killer=killer)


def failing_without_fault(copy: Path, nodeids: Sequence[str]) -> bool:
    """Return whether the tests fail on the sources as they are: what they killed would prove nothing."""
    killer_file = copy.parent / "without-fault.killer"
    _, status = os.waitpid(start_tests(copy, None, nodeids, killer_file), 0)
    return os.waitstatus_to_exitcode(status) != pytest.ExitCode.OK
