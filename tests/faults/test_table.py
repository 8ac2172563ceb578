"""The table of faults follows the code: `make faults` must find what it changes."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.faults.table import FAULTS, Fault


@pytest.mark.parametrize("fault", FAULTS, ids=[one.name for one in FAULTS])
def test_what_a_fault_changes_is_there_once(fault: Fault) -> None:
    path = ROOT / Path(*fault.module.split(".")).with_suffix(".py")
    assert path.read_text(encoding="utf-8").count(fault.old) == 1
    assert all((ROOT / name).is_file() for name in fault.tests)
