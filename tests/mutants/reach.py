"""Which fast tests reach a line: observed by coverage, and again only for files of tests that changed."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from coverage import Coverage, CoverageData

from tests.mutants.fast_tests import LEFT_OUT_FOLDERS, ReachCollector, ReachedByTest
from tests.mutants.fork import fork, run_pytest

LONGEST_S = 20
"""A test that takes longer under coverage is not used: a fault must cost seconds."""
ENDLESS_S = 200
"""A test that has not ended by then, on however busy a machine, never will."""


class Reach:
    """The fast tests, and which of them reach which line."""

    def __init__(self, tests: Iterable[ReachedByTest], lines: CoverageData) -> None:
        self.tests = {test.nodeid: test for test in tests if _is_usable(test)}
        self.users: dict[str, set[str]] = defaultdict(set)
        """Which tests have a context."""
        for test in self.tests.values():
            for context in test.contexts:
                self.users[context].add(test.nodeid)
        self._lines = lines
        self._contexts: dict[str, dict[int, list[str]]] = {}

    def tests_of(self, path: str, first: int, last: int) -> set[str]:
        """Return the tests that run a line of a file between two lines, both included."""
        if path not in self._contexts:
            self._contexts[path] = self._lines.contexts_by_lineno(path)
        contexts = {name for line in range(first, last + 1) for name in self._contexts[path].get(line, ())}
        return {test for name in contexts for test in self.users.get(name, ())}

    def fastest_first(self, tests: Iterable[str]) -> list[str]:
        """Return tests in the order in which they should run."""
        return sorted(tests, key=lambda nodeid: (self.tests[nodeid].seconds, nodeid))


def _is_usable(test: ReachedByTest) -> bool:
    return test.passed and not test.starts_process and test.seconds <= LONGEST_S


def base_hash(checkout: Path) -> str:
    """Return a name for all sources, and what the tests share, as they are and not as they are committed."""
    digest = hashlib.sha256(sys.version.encode())
    for folder in ("memtrace", "tests"):
        for path in sorted((checkout / folder).rglob("*.py")):
            if not _is_test_file(path) and "mutants" not in path.parts:
                digest.update(str(path.relative_to(checkout)).encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]


def test_file_hashes(checkout: Path) -> dict[str, str]:
    """Return a hash for the text of each file of tests that may be fast."""
    paths = sorted(path for path in (checkout / "tests").rglob("*.py") if _is_test_file(path))
    hashes = {path.relative_to(checkout).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}
    return {name: digest for name, digest in hashes.items() if not name.startswith(LEFT_OUT_FOLDERS)}


def _is_test_file(path: Path) -> bool:
    return path.name.startswith("test_")


def load_or_observe(copy: Path, cache: Path, checkout: Path, jobs: int) -> Reach:
    """Return what the tests of the copy reach; files of tests that did not change since are not run again."""
    key, hashes = base_hash(checkout), test_file_hashes(checkout)
    lines_file, tests_file = cache / f"{key}.coverage", cache / f"{key}.json"
    kept = json.loads(tests_file.read_text()) if tests_file.is_file() else {"files": {}, "tests": []}
    changed = [name for name, digest in hashes.items() if kept["files"].get(name) != digest]
    tests = [test for test in kept["tests"] if _file_of(test) in hashes.keys() - set(changed)]
    if changed:
        print(f"Observing which lines {len(changed)} files of tests reach, in {jobs} processes; kept in {cache}.")
        cache.mkdir(parents=True, exist_ok=True)
        tests += _observe(copy, lines_file, changed, jobs)
        tests_file.write_text(json.dumps({"files": hashes, "tests": tests}))
    lines = CoverageData(str(lines_file))
    lines.read()
    return Reach((ReachedByTest(**test) for test in tests), lines)


def _file_of(test: dict[str, Any]) -> str:
    return str(test["nodeid"].split("::")[0])


def _observe(copy: Path, lines_file: Path, files: list[str], jobs: int) -> list[dict[str, Any]]:
    """Run files of tests and add the lines that they reach to those known. What a test reached before stays with it."""
    log = [copy.parent / f"reach-{share}.log" for share in range(jobs)]
    parts = [copy.parent / f"reach-{share}" for share in range(jobs)]
    processes = [
        fork(copy, log[share], partial(_observe_share, copy, part, files, share, jobs))
        for share, part in enumerate(parts)
    ]
    for process in processes:
        os.waitpid(process, 0)
    whole = CoverageData(str(lines_file))
    whole.read()
    tests: list[dict[str, Any]] = []
    for share, part in enumerate(parts):
        found = part.with_suffix(".json")
        if not found.is_file():
            raise SystemExit(f"the tests did not run:\n{log[share].read_text()[-4000:]}")
        tests += json.loads(found.read_text())
        data = CoverageData(str(part))
        data.read()
        whole.update(data)
    whole.write()
    return tests


def _observe_share(copy: Path, part: Path, files: list[str], share: int, jobs: int) -> int:
    coverage = Coverage(data_file=str(part), config_file=False, source=["memtrace"], messages=False)
    # Python's newer monitoring cannot tell contexts apart.
    coverage.set_option("run:core", "ctrace")
    coverage.set_option("run:relative_files", True)
    coverage.set_option("run:disable_warnings", ["module-not-imported", "no-data-collected", "module-not-measured"])
    collector = ReachCollector(coverage, share, jobs)
    coverage.start()
    status = run_pytest(copy, [f"--timeout={ENDLESS_S}", *files], collector)
    coverage.stop()
    coverage.save()
    part.with_suffix(".json").write_text(json.dumps([asdict(test) for test in collector.tests.values()]))
    return status
