"""A whole run, on a small package of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = """\
LIMIT = 3


def over(sizes):
    return [size for size in sizes if size > LIMIT]


def never_tested(size):
    return size + 1


def waits(size):
    while size < 10:
        size += 1
    return size
"""
TESTS = """\
import pytest
from memtrace.toy import over, waits


@pytest.fixture(scope="module")
def shared():
    return over([2, 4])


def test_first_user_of_the_fixture(shared):
    assert shared


def test_second_user_of_the_fixture(shared):
    assert shared == [4]


def test_ends():
    assert waits(1) == 10
"""


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout of a package called memtrace."""
    folder = tmp_path_factory.mktemp("work") / "toy"
    files = {"memtrace/__init__.py": "", "memtrace/toy.py": PACKAGE, "tests/test_toy.py": TESTS, "pyproject.toml": ""}
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    subprocess.run(["git", "init", "-q", str(folder)], check=True)
    return folder


@pytest.fixture(scope="module")
def printed(checkout: Path, repo_root: Path) -> str:
    """What a run over all its faults prints."""
    command = [sys.executable, "-m", "tests.mutants", "--checkout", str(checkout), "--only", "memtrace/", "--seed", "1"]
    # The package called memtrace has no pytest plugin.
    environment = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTEST_ADDOPTS": "-p pytest_timeout"}
    ran = subprocess.run(
        command, cwd=repo_root, env={**os.environ, **environment}, capture_output=True, text=True, timeout=200
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout


def survivors(printed: str) -> set[tuple[str, ...]]:
    """Return place, old line and new line of each survivor."""
    listed = printed.split("Survivors")[1].split("\n\n")[1:-1]
    return {tuple(line.strip() for line in block.splitlines()) for block in listed}


def test_faults_that_no_test_tells_apart_survive(printed: str) -> None:
    assert survivors(printed) == {
        # No size is 3, and none lies between 3 and 4.
        (
            "memtrace/toy.py:5  (2 tests passed)",
            "return [size for size in sizes if size > LIMIT]",
            "return [size for size in sizes if size >= LIMIT]",
        ),
        ("memtrace/toy.py:9  (no fast test reaches it)", "return size + 1", "return None"),
        ("memtrace/toy.py:9  (no fast test reaches it)", "return size + 1", "return size - 1"),
        ("memtrace/toy.py:9  (no fast test reaches it)", "return size + 1", "return size + 2"),
    }


def test_a_constant_of_the_module_is_tried_where_its_name_is_used(printed: str) -> None:
    assert "killed      memtrace/toy.py:1 by tests/test_toy.py::test_" in printed


def test_a_loop_without_an_end_is_ended(printed: str) -> None:
    assert "timed out   memtrace/toy.py:14" in printed


def test_the_checkout_stays_as_it_was(checkout: Path, printed: str) -> None:
    assert printed
    assert (checkout / "memtrace/toy.py").read_text() == PACKAGE
    assert sorted(path.name for path in checkout.iterdir()) == [
        ".git",
        ".mutants",
        "memtrace",
        "pyproject.toml",
        "tests",
    ]
