"""Faults in trainers, closures, hooks, generators and wrappers are named on a device as on the CPU."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.analysis.styled_expectations import FAULTS, SCRIPT, check
from tests.driverless.conftest import Run, ended_too_early


@pytest.fixture(scope="module")
def runs(run_driverless: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the recorded runs."""
    folder = tmp_path_factory.mktemp("styled")
    done = run_driverless(SCRIPT, folder, gpu="a100-40gb")
    assert done.returncode == 0 or ended_too_early(done), done.stderr[-3000:]
    return folder


@pytest.mark.parametrize("name", FAULTS)
def test_the_fault_is_named_in_any_style(runs: Path, name: str) -> None:
    check(runs, name)
