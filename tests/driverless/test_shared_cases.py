"""Programs that people reported, on a device: cause and line are named as on the CPU, and repaired twins are silent."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.analysis.reported_cases import CASES, CONTROLS, NEEDS, OF_TWO_RANKS, check_case, check_control
from tests.driverless.conftest import ROOT, Run, ended_too_early

SCRIPTS = ROOT / "tests" / "analysis"


@pytest.fixture(scope="module")
def runs(run_driverless: Run, reported_programs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the recorded runs."""
    folder = tmp_path_factory.mktemp("cases")
    names = [f"{name}:{NEEDS[name]}" if name in NEEDS else name for name in (*CONTROLS, *CASES)]
    for script, programs in (("shared_cases.py", names), ("shared_ranks.py", OF_TWO_RANKS)):
        done = run_driverless(
            SCRIPTS / script, reported_programs, folder, *programs, gpu="a100-40gb", num_devices=2, timeout_s=600
        )
        assert done.returncode == 0 or ended_too_early(done), done.stderr[-3000:]
    return folder


@pytest.mark.parametrize("name", [*CASES, *OF_TWO_RANKS])
def test_the_cause_is_named_on_a_device(runs: Path, reported_programs: Path, name: str) -> None:
    check_case(runs, reported_programs, name, on_device=True)


@pytest.mark.parametrize("name", CONTROLS)
def test_a_healthy_program_is_warned_of_nothing(runs: Path, name: str) -> None:
    check_control(runs, name)
