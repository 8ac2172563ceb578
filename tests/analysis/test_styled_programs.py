"""Faults in trainers, closures, hooks, generators and wrappers are named with their line, and twins are silent."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.analysis.recorded_script import run_script
from tests.analysis.styled_expectations import FAULTS, check


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, repo_root: Path) -> Path:
    """The folder of the recorded runs."""
    folder = tmp_path_factory.mktemp("styled")
    run_script(repo_root, "styled_programs", folder)
    return folder


@pytest.mark.parametrize("name", FAULTS)
def test_the_fault_is_named_in_any_style(runs: Path, name: str) -> None:
    check(runs, name)
