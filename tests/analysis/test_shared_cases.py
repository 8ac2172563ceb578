"""Programs that people reported: the cause stands in the first two findings; of the repaired twin it does not."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.analysis.recorded_script import run_script
from tests.analysis.reported_cases import CASES, CONTROLS, NEEDS, OF_TWO_RANKS, check_case, check_control


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, repo_root: Path, reported_programs: Path) -> Path:
    """The folder of the recorded runs."""
    folder = tmp_path_factory.mktemp("cases")
    names = [f"{name}:{NEEDS[name]}" if name in NEEDS else name for name in (*CONTROLS, *CASES)]
    run_script(repo_root, "shared_cases", reported_programs, folder, *names, timeout_s=600)
    run_script(repo_root, "shared_ranks", reported_programs, folder, *OF_TWO_RANKS, timeout_s=300)
    return folder


def test_every_program_is_asked(reported_programs: Path) -> None:
    assert sorted([*CASES, *OF_TWO_RANKS, *CONTROLS]) == sorted(one.stem for one in reported_programs.glob("*.py"))


@pytest.mark.parametrize("name", [*CASES, *OF_TWO_RANKS])
def test_the_cause_is_named_and_the_repaired_program_is_silent(runs: Path, reported_programs: Path, name: str) -> None:
    check_case(runs, reported_programs, name)


@pytest.mark.parametrize("name", CONTROLS)
def test_a_healthy_program_is_warned_of_nothing(runs: Path, name: str) -> None:
    check_control(runs, name)
