"""Programs that were recorded wrongly once, on a device: steps, owners and findings are right as on the CPU."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.analysis.recorded_cases import CHECKS, RUNS, Reports, reports_of
from tests.driverless.conftest import ROOT, Run, ended_too_early


@pytest.fixture(scope="module")
def reports(run_driverless: Run, recorded_programs: Path, tmp_path_factory: pytest.TempPathFactory) -> Reports:
    """The reports of the runs."""
    folder = tmp_path_factory.mktemp("recordings")
    script = ROOT / "tests" / "analysis" / "shared_recordings.py"
    done = run_driverless(script, recorded_programs, folder, *RUNS, gpu="a100-40gb")
    assert done.returncode == 0 or ended_too_early(done), done.stderr[-3000:]
    return reports_of(folder)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__.strip("_"))
def test_it_is_told_right(reports: Reports, check: Callable[[Reports], None]) -> None:
    check(reports)
