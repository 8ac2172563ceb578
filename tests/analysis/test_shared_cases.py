"""Programs that people reported: the cause stands in the first two findings; of the repaired twin it does not."""

from __future__ import annotations

from pathlib import Path

import pytest

from memtrace.analysis.report import analyze
from memtrace.analysis.results.report import Report
from memtrace.store.reading.read import read_trace
from tests.analysis.recorded_script import run_script

CASES: dict[str, tuple[str, str | None, bool]] = {
    "c01_val_loss_graph": ("evaluation-graph", "total = total + ce(net(x), y)", True),
    "c07_eval_keeps_logits": ("evaluation-outputs", "found.append(", True),
    "c09_checkpoint_kept": ("second-copy", "ckpt = torch.load(", True),
    "c10_frozen_base_gets_grads": ("unstepped-gradients", "loss.backward()", False),
    # Model and loss are called by two lines, of which the one that runs the program is the first that both share.
    "c17_longest_batch": ("odd-batch", None, True),
    "c18_checkpointing_off_after_eval": ("recomputation-off", "checkpoint(block, x", True),
    "c21_logprob_gather": ("large-logits", "log_softmax(-1).gather(", True),
    "c31_autocast_around_loop": ("autocast-copies", "loss = net(x)", True),
    "c35_epoch_outputs": ("kept-for-steps", "x_hat", False),
}
"""The finding of each, code of the line that it names, and whether the peak that it promises is that of the twin."""
CONTROLS = ("c41_control_unfreezing",)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, repo_root: Path, reported_programs: Path) -> Path:
    """The folder of the recorded runs."""
    folder = tmp_path_factory.mktemp("cases")
    run_script(repo_root, "shared_cases", reported_programs, folder, *CASES, *CONTROLS, timeout_s=600)
    return folder


def report_of(runs: Path, name: str) -> Report:
    return analyze(read_trace([runs / f"{name}.json"]))


@pytest.mark.parametrize("name", CASES)
def test_the_cause_is_named_and_the_repaired_program_is_silent(runs: Path, reported_programs: Path, name: str) -> None:
    check_case(runs, reported_programs, name, CASES[name][1])


def check_case(runs: Path, reported_programs: Path, name: str, code: str | None) -> None:
    """Hold the recordings of a program, with its fault and without, against what is wrong with it and in which line."""
    slug, _, is_exact = CASES[name]
    faulty, healthy = report_of(runs, name), report_of(runs, f"{name}-healthy")
    found = [one for one in faulty.findings[:2] if one.slug == slug]
    assert found, [(one.slug, one.title) for one in faulty.findings]
    assert slug not in [one.slug for one in healthy.findings]
    if code is not None:
        assert found[0].where is not None
        lines = (reported_programs / f"{name}.py").read_text(encoding="utf-8").splitlines()
        assert code in lines[found[0].where["line"] - 1]
    if is_exact:
        assert found[0].new_peak_bytes == pytest.approx(healthy.ranks[0].peak.requested_bytes, rel=0.02)


@pytest.mark.parametrize("name", CONTROLS)
def test_a_healthy_program_is_warned_of_nothing(runs: Path, name: str) -> None:
    for report in (report_of(runs, name), report_of(runs, f"{name}-healthy")):
        assert [one.slug for one in report.findings if one.severity != "info"] == []
