"""What is found of the programs in many styles, and how their recordings are held against it."""

from __future__ import annotations

from pathlib import Path

from memtrace.analysis.report import analyze
from memtrace.analysis.results.report import Report
from memtrace.store.reading.read import read_trace

SCRIPT = Path(__file__).with_name("styled_programs.py")
FAULTS = {
    "trainer_sums_its_validation": ("evaluation-graph", ""),
    "hook_collects": ("leak", "dict 'features'"),
    "generator_of_results": ("outputs-of-step-before", "tuple 'result'"),
    "results_gathered_for_an_epoch": ("kept", "accelerated.gathered"),
    "error_noted_in_a_state": ("kept", "in the traceback of RuntimeError kept by state.last_error"),
    "best_weights_in_a_state": ("leak", "state.best"),
    "callbacks_know_their_loop": ("kept-for-steps", "cycle through Callback.loop"),
}
"""For each program its finding and what keeps the bytes."""


def check(folder: Path, name: str) -> None:
    """Assert that a fault is among the first two findings, with keeper and line, and that its twin has none like it."""
    slug, keeper = FAULTS[name]
    faulty, healthy = _report_of(folder, name), _report_of(folder, f"{name}-healthy")
    found = [one for one in faulty.findings[:2] if one.slug == slug and keeper in one.title]
    assert found, [(one.slug, one.title) for one in faulty.findings]
    assert slug not in [one.slug for one in healthy.findings]
    assert found[0].where is not None
    line = SCRIPT.read_text(encoding="utf-8").splitlines()[found[0].where["line"] - 1]
    assert line.endswith("# named"), line


def _report_of(folder: Path, name: str) -> Report:
    return analyze(read_trace([folder / f"{name}.json"]))
