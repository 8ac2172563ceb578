"""Programs that people reported, on a device: cause and line are named as on the CPU, and repaired twins are silent."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.analysis.test_shared_cases import check_case
from tests.driverless.conftest import ROOT, Run, ended_too_early

# The workspaces of cuBLAS are made in the first, in which what is kept is judged by what the program has beside them.
LINES = {
    "c35_epoch_outputs": "x = torch.randn(",
    "c10_frozen_base_gets_grads": "loss.backward()",
    "c01_val_loss_graph": "total = total + ce(net(x), y)",
    "c09_checkpoint_kept": "ckpt = torch.load(",
}
"""Some of the programs, with code of the line: outputs that are kept (of inputs and what is made of them, which are as
large, either), gradients of autograd's own thread, evaluation, a second copy."""


@pytest.fixture(scope="module")
def runs(run_driverless: Run, reported_programs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the recorded runs."""
    folder = tmp_path_factory.mktemp("cases")
    script = ROOT / "tests" / "analysis" / "shared_cases.py"
    done = run_driverless(script, reported_programs, folder, *LINES, gpu="a100-40gb")
    assert done.returncode == 0 or ended_too_early(done), done.stderr[-3000:]
    return folder


@pytest.mark.parametrize("name", LINES)
def test_the_cause_is_named_on_a_device(runs: Path, reported_programs: Path, name: str) -> None:
    check_case(runs, reported_programs, name, LINES[name])
