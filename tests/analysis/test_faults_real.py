"""Each fault of `faulty_runs` is named with its line and the peak of its twin, which gets no such finding."""

from __future__ import annotations

from pathlib import Path

import pytest

from memtrace.analysis.report import analyze
from memtrace.analysis.results.report import Report
from memtrace.store.reading.read import read_trace
from tests.analysis.faulty_runs import FAULTS, WIDTH
from tests.analysis.recorded_script import run_script

EXPECTED: dict[str, tuple[str, str | None, float | None]] = {
    "checkpoint_kept": ("second-copy", None, 0.02),
    "best_model_kept": ("second-copy", None, 0.02),
    "rounds_kept": ("second-copy", None, 0.02),
    # Without gradients nothing of the base is kept for backward either.
    "base_not_frozen": ("unstepped-gradients", ".backward()", 0.15),
    "log_probabilities_of_all_words": ("large-logits", "log_softmax(-1).gather(", 0.1),
    "autocast_around_the_loop": ("autocast-copies", "loss = model(", 0.1),
    "autocast_around_each_epoch": ("autocast-copies", "loss = model(", 0.1),
    "checkpointing_off_after_evaluation": ("recomputation-off", "checkpoint(block", 0.02),
    # A gradient that is added to has its new part beside it for a moment.
    "one_backward": ("one-backward", "model(torch.randn(128, WIDTH))", None),
    "flat_copy_of_gradients": ("flat-gradients", "flat = torch.cat(", 0.1),
    "gradients_set_to_zero_by_hand": ("gradients-through-forward", ".mean().backward()", 0.02),
    "gradients_returned": ("returned-gradients", "gradients = torch.autograd.grad(", 0.02),
    # Without a graph, what a module made is gone before its call is over.
    "losses_only_looked_at": ("unused-graph", "losses[part % 2] += loss", 0.2),
    "output_without_loss": ("unused-graph", "beside = other(batch)", 0.3),
    "gradients_compared_with_those_before": ("flat-gradients", None, None),
    "evaluation_with_graph_late": ("evaluation-graph", "losses.append(", None),
    "pairs_of_many_objects": ("odd-batch", "torch.sub(boxes[:, None]", 0.05),
    "one_long_batch": ("odd-batch", ".backward()", 0.05),
    "growing_batches": ("growing-batches", ".backward()", None),
    # Of the batches that the graph keeps, the recording does not know that.
    "evaluation_with_graph": ("evaluation-graph", "total = total + model(", None),
    "evaluation_outputs_kept": ("evaluation-outputs", "found.append(", 0.05),
}
"""For each fault its finding, code of the line that it names, and how close the promised peak comes to the twin's."""


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, repo_root: Path) -> Path:
    """The folder of the recorded runs."""
    folder = tmp_path_factory.mktemp("runs")
    run_script(repo_root, "faulty_runs", folder)
    assert sorted(EXPECTED) == sorted(FAULTS)
    return folder


def report_of(runs: Path, name: str) -> Report:
    return analyze(read_trace([runs / f"{name}.json"]))


@pytest.mark.parametrize("name", EXPECTED)
def test_the_fault_is_named_with_its_line_and_the_peak_of_the_twin(runs: Path, repo_root: Path, name: str) -> None:
    slug, code, tolerance = EXPECTED[name]
    faulty, healthy = report_of(runs, name), report_of(runs, f"{name}-healthy")
    found = [one for one in faulty.findings[:2] if one.slug == slug]
    assert found, [(one.slug, one.title) for one in faulty.findings]
    assert slug not in [one.slug for one in healthy.findings], healthy.findings
    if code is not None:
        lines = (repo_root / "tests/analysis/faulty_runs.py").read_text(encoding="utf-8").splitlines()
        assert found[0].where is not None
        assert code in lines[found[0].where["line"] - 1]
    twin, promised = healthy.ranks[0].peak.requested_bytes, found[0].new_peak_bytes
    if promised is not None:
        assert twin is not None
        assert promised >= 0.95 * twin
    if tolerance is not None:
        assert promised == pytest.approx(twin, rel=tolerance)


def test_what_a_graph_keeps_is_no_output(runs: Path) -> None:
    at_peak = report_of(runs, "losses_only_looked_at").ranks[0].activations
    assert at_peak is not None
    num_bytes = {one.name: one.num_bytes for one in at_peak.by_role}
    # What four layers made, for each of six losses; outputs are numbers.
    assert num_bytes["saved"] >= 6 * 4 * 128 * WIDTH * 4
    assert num_bytes["output"] < WIDTH


def test_a_program_without_a_fault_is_warned_of_nothing(runs: Path) -> None:
    for name in EXPECTED:
        warned = [one.slug for one in report_of(runs, f"{name}-healthy").findings if one.severity != "info"]
        assert warned == [], name


def test_what_costs_nothing_comes_before_what_costs_compute(runs: Path) -> None:
    findings = report_of(runs, "one_backward").findings
    found = [one.slug for one in findings]
    assert found.index("one-backward") < found.index("smaller-micro-batch")
    # Six forwards of a network of five layers, the head among them, are no thirty layers.
    layers = [one.evidence["num_layers_at_peak"] for one in findings if one.slug == "full-recomputation"]
    assert max(layers, default=0) <= 5


def test_without_an_optimizer_no_advice_speaks_of_one(runs: Path) -> None:
    kept, *_ = report_of(runs, "gradients_set_to_zero_by_hand").findings
    assert "parameter.grad = None" in kept.change
    assert "optimizer" not in kept.change
