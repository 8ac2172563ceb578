"""Programs that keep tensors by design are warned of nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from memtrace.analysis.report import analyze
from memtrace.store.reading.read import read_trace
from tests.analysis.healthy_programs import HEALTHY
from tests.analysis.recorded_script import run_script

TRUE = {
    # Until the weights are put back, where the peak is.
    "rate_found_first": ["second-copy"],
    # Of the scores against the queue, which are most of so small a program.
    "queue_of_keys": ["large-logits"],
    # Its variable is there through the next backward, where the peak is.
    "held_out_loss_detached": ["unused-graph"],
}
"""What is so, and said, although nothing is wrong with it."""


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, repo_root: Path) -> Path:
    """The folder of the recorded runs."""
    folder = tmp_path_factory.mktemp("healthy")
    run_script(repo_root, "healthy_programs", folder)
    return folder


@pytest.mark.parametrize("name", HEALTHY)
def test_what_is_kept_by_design_is_no_fault(runs: Path, name: str) -> None:
    report = analyze(read_trace([runs / f"{name}.json"]))
    assert len(report.ranks[0].steps) > 3
    assert [one.slug for one in report.findings if one.severity != "info"] == TRUE.get(name, [])
