"""Inference on real snapshots, against what is known of the programs that made them."""

from __future__ import annotations

from pathlib import Path

import pytest

from memtrace.analysis.report import analyze
from memtrace.analysis.results.report import RankReport, State
from memtrace.schema.workspaces import SMALL_CUBLAS_BYTES
from memtrace.store.reading.read import read_trace

MIB = 2**20


def _report(shared_data: Path, name: str) -> RankReport:
    return analyze(read_trace(shared_data / "snapshots" / f"{name}.pickle")).ranks[0]


def _is_inferred(state: State) -> bool:
    return not {"owner", "hook"} & {name for name, size in state.by_decision.items() if size}


@pytest.mark.parametrize("batch", [100, 200])
def test_history_from_process_start(shared_data: Path, batch: int) -> None:
    report = _report(shared_data, f"gpt-train-3-steps-from-process-start-batch{batch}")
    assert [one.step for one in report.steps] == [1, 2, 3]
    for step in report.steps:
        assert [one.phase for one in step.phases] == ["forward", "backward", "optimizer"]
        assert step.end is not None
        found = step.end.by_category
        assert found["parameter"] / MIB == pytest.approx(86.6, abs=0.05)
        assert found["gradient"] == found["parameter"]
        assert found["optimizer_state"] == 2 * found["parameter"]
    assert report.peak.requested_bytes is not None
    assert report.peak.by_category["unknown"] <= 0.02 * report.peak.requested_bytes
    assert report.peak.by_category["activation"] > 200 * MIB
    assert _is_inferred(report.peak)


@pytest.mark.parametrize("batch", [100, 200])
def test_states_made_at_construction_are_there_before_the_first_optimizer_step(shared_data: Path, batch: int) -> None:
    peak = _report(shared_data, f"gpt-train-3-steps-from-process-start-batch{batch}").first_step_peak
    assert peak is not None
    assert peak.phase == "backward"
    assert peak.by_category["optimizer_state"] == 2 * peak.by_category["parameter"]


@pytest.mark.parametrize(
    "name",
    [
        "gpt-medium-train-warm-step-late-history",
        "gpt-medium-512-train-warm-step-unsplit-live-blocks",
        "gpt-train-windows-frameless-backward",
    ],
)
def test_late_history_has_the_right_proportions(shared_data: Path, name: str) -> None:
    report = _report(shared_data, name)
    found = report.end.by_category
    # A buffer as large as some weight cannot be told from a parameter: a few KiB of 1.6 GiB.
    assert found["gradient"] == pytest.approx(found["parameter"], rel=0.001)
    assert found["optimizer_state"] == pytest.approx(2 * found["parameter"], rel=0.001)
    assert report.peak.requested_bytes is not None
    assert report.peak.by_category["unknown"] <= 0.02 * report.peak.requested_bytes
    assert _is_inferred(report.end)
    assert report.first_step_peak is None


def test_inference_without_training_stays_unknown(shared_data: Path) -> None:
    report = _report(shared_data, "gpt-inference-from-process-start")
    assert report.steps == ()
    # But for the one thing that its size tells.
    assert set(report.peak.by_category) == {"unknown", "workspace"}
    assert report.peak.by_category["workspace"] == SMALL_CUBLAS_BYTES
