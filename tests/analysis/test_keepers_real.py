"""What programs keep is named with who keeps it and where, among the first two findings; of the twin nothing is."""

from __future__ import annotations

from pathlib import Path

import pytest

from memtrace.analysis.report import analyze
from memtrace.analysis.results.report import Report
from memtrace.store.reading.read import read_trace
from tests.analysis.recorded_script import run_script

PROGRAMS = {
    "list_of_predictions": ("leak", "list 'predictions'", None),
    "exception_kept": (
        "kept",
        "'scratch' of attempt, in the traceback of RuntimeError kept by list 'failures'",
        "scratch = torch.randn(",
    ),
    "graph_of_gradients": ("leak", "its own .grad", "score.backward(create_graph=True)"),
    "masks_cached": ("leak", "the cache of ", ".triu(1)"),
    "cycles": ("kept-for-steps", "cycle through ", "self.features = "),
    "outputs_kept": ("outputs-of-step-before", "'hidden'", None),
    "window_of_losses": ("kept", "graph of list 'window'", "window.append("),
    "outputs_of_an_epoch": ("kept", "'seen'", "seen = torch.cat("),
    "outputs_by_step": ("kept", "dict 'outputs'", "outputs[step] = "),
    "outputs_gathered": ("kept", "list 'gathered'", "gathered.append("),
}
"""For each program its finding, what keeps it, and code of the line that it names, where it is that which feeds it."""
_OF_KEEPING = ("leak", "kept", "kept-for-steps")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, repo_root: Path) -> Path:
    """The folder of the recorded runs."""
    folder = tmp_path_factory.mktemp("keeping")
    run_script(repo_root, "keeping_programs", folder, timeout_s=600)
    return folder


def report_of(runs: Path, name: str, capacity: int | None = None) -> Report:
    return analyze(read_trace([runs / f"{name}.json"]), capacity_bytes=capacity)


def check(runs: Path, name: str, source: Path, expected: tuple[str, str, str | None]) -> None:
    """Assert that a program's fault is named, and that of its twin nothing is kept."""
    slug, keeper, code = expected
    faulty, healthy = report_of(runs, name), report_of(runs, f"{name}-healthy")
    found = [one for one in faulty.findings[:2] if one.slug == slug and keeper in str(one.evidence.get("kept_by"))]
    assert found, [(one.slug, one.title) for one in faulty.findings]
    assert keeper in found[0].title
    if code is not None:
        assert found[0].where is not None
        assert code in source.read_text(encoding="utf-8").splitlines()[found[0].where["line"] - 1]
    assert [one.title for one in healthy.findings if one.slug in _OF_KEEPING] == []


@pytest.mark.parametrize("name", PROGRAMS)
def test_the_keeper_is_named_and_the_repaired_program_keeps_nothing(runs: Path, repo_root: Path, name: str) -> None:
    check(runs, name, repo_root / "tests/analysis/keeping_programs.py", PROGRAMS[name])


def test_the_window_of_the_worst_step_is_kept_and_a_capacity_judged_by_it(runs: Path) -> None:
    report, healthy = report_of(runs, "worst_batch"), report_of(runs, "worst_batch-healthy")
    steps = {step.step: step for step in report.ranks[0].steps}
    assert report.ranks[0].peak.step == 29
    assert steps[29].recorded
    assert steps[29].high_water_bytes == steps[29].peak_requested_bytes
    others = [step for step in steps.values() if step.step != 29 and not step.recorded]
    assert len(others) > 30
    peak = report.ranks[0].peak.requested_bytes or 0
    assert all(step.high_water_bytes is not None and 0 < step.high_water_bytes < peak for step in others)
    oom = report_of(runs, "worst_batch", capacity=peak - 1).ranks[0].oom
    assert oom is not None
    assert oom.step == 29
    assert (healthy.ranks[0].peak.requested_bytes or 0) < peak / 4
