"""Programs that were recorded wrongly once: steps, owners and findings are right."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.analysis.recorded_cases import CHECKS, RUNS, Reports, reports_of
from tests.analysis.recorded_script import run_script


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory, repo_root: Path, recorded_programs: Path) -> Reports:
    """The reports of the runs."""
    folder = tmp_path_factory.mktemp("recordings")
    run_script(repo_root, "shared_recordings", recorded_programs, folder, *RUNS)
    return reports_of(folder)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__.strip("_"))
def test_it_is_told_right(reports: Reports, check: Callable[[Reports], None]) -> None:
    check(reports)


def test_an_average_of_the_weights_is_what_the_program_writes_to(reports: Reports) -> None:
    assert reports("ema").findings[0].slug == "own-sets"
