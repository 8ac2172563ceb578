"""The peak that advice promises against the peak of a run that really took it, and that the advice is then gone."""

from __future__ import annotations

from pathlib import Path

import pytest

from memtrace.analysis.advice.find import find_advice
from memtrace.analysis.asked.what_ifs import Asked, try_what_ifs
from memtrace.analysis.device.device_history import build_history
from memtrace.analysis.results.report import Finding
from memtrace.analysis.what_if.recompute import FULL
from memtrace.store.reading.read import read_trace
from tests.analysis.changed_runs import RUNS
from tests.analysis.recorded_script import run_script


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, repo_root: Path) -> Path:
    """The folder of the recorded runs."""
    folder = tmp_path_factory.mktemp("runs")
    run_script(repo_root, "changed_runs", folder)
    assert sorted(path.stem for path in folder.glob("*.json")) == sorted(RUNS)
    return folder


def findings_and_peak(runs: Path, name: str) -> tuple[dict[str, Finding], int]:
    """Return the advice for a run by slug, and its peak."""
    history = build_history(read_trace([runs / f"{name}.json"]).ranks[0], "cpu", owns_marks=True)
    return {finding.slug: finding for finding in find_advice(history)}, int(history.levels.requested.max())


@pytest.mark.parametrize(
    ("before", "slug", "after"),
    [
        ("plain", "smaller-micro-batch", "half"),
        ("plain", "full-recomputation", "checkpointing"),
        ("plain", "activations-in-float", "bfloat16"),
        ("zeroed", "gradients-through-forward", "plain"),
        ("late", "gradients-through-forward", "plain"),
        ("small foreach", "foreach-temporaries", "small loop"),
        ("small sgd foreach", "foreach-temporaries", "small sgd loop"),
        ("words", "large-logits", "words in chunks"),
        ("outputs held", "outputs-of-step-before", "outputs dropped"),
    ],
)
def test_the_promised_peak_is_that_of_the_changed_run(runs: Path, before: str, slug: str, after: str) -> None:
    advice, peak = findings_and_peak(runs, before)
    changed_advice, changed_peak = findings_and_peak(runs, after)
    promised = advice[slug].new_peak_bytes
    assert promised is not None
    print(f"{slug}: {before} {peak}, promised {promised}, {after} {changed_peak}: {promised / changed_peak - 1:+.2%}")
    assert promised == pytest.approx(changed_peak, rel=0.02)
    assert advice[slug].saves_bytes == peak - promised
    # Half a micro-batch can be halved again; all else is done.
    assert slug in ("smaller-micro-batch", *(set(advice) - set(changed_advice)))


def test_recomputation_as_a_finding_as_its_remedy_and_as_a_what_if_peaks_alike(runs: Path) -> None:
    promised = findings_and_peak(runs, "plain")[0]["full-recomputation"]
    made = read_trace([runs / "plain.json"])
    asked = (Asked(recompute=FULL, as_cuda=True), Asked(remedies=(promised.slug,), as_cuda=True))
    for one in asked:
        (result,) = try_what_ifs(made, one)[0]
        assert result.rows[-1].peak_requested_bytes == promised.new_peak_bytes


def test_a_fused_step_makes_no_temporaries(runs: Path) -> None:
    advice, _ = findings_and_peak(runs, "small foreach")
    _, fused_peak = findings_and_peak(runs, "small fused")
    assert advice["foreach-temporaries"].evidence["new_peak_fused_bytes"] == pytest.approx(fused_peak, rel=0.02)


@pytest.mark.parametrize("name", ["plain", "half", "checkpointing", "bfloat16", "small loop", "small fused"])
def test_a_run_without_a_fault_is_offered_trades_only(runs: Path, name: str) -> None:
    advice, _ = findings_and_peak(runs, name)
    assert [finding.slug for finding in advice.values() if finding.severity != "info"] == []


def test_each_cause_names_the_line_that_asked_for_the_memory(runs: Path, repo_root: Path) -> None:
    lines = (repo_root / "tests/analysis/changed_runs.py").read_text(encoding="utf-8").splitlines()
    for name, slug, code in (
        ("zeroed", "gradients-through-forward", "backward()"),
        ("small foreach", "foreach-temporaries", "optimizer.step()"),
        ("words", "large-logits", "cross_entropy(self.head(rows)"),
        ("plain", "full-recomputation", "self.up(self.norm(rows))"),
        ("outputs held", "outputs-of-step-before", "return self.head(rows)"),
    ):
        where = findings_and_peak(runs, name)[0][slug].where
        assert where is not None
        assert where["file"].endswith("changed_runs.py")
        assert code in lines[where["line"] - 1]


def test_where_gradients_are_dropped_late_the_call_is_to_be_moved_and_else_changed(runs: Path) -> None:
    kept = findings_and_peak(runs, "zeroed")[0]["gradients-through-forward"]
    late = findings_and_peak(runs, "late")[0]["gradients-through-forward"]
    assert (kept.evidence["zeroed_in_place"], late.evidence["zeroed_in_place"]) == (True, False)
    assert "set_to_none=True" in kept.change
    assert "right after optimizer.step()" in late.change
