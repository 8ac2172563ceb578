"""Steps, phases, owners and batches of well-known loops against the account that each keeps of itself, to the byte."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from memtrace.analysis.report import analyze
from memtrace.store.reading.read import read_trace
from tests.analysis.loop_accounts import record_loops, told
from tests.analysis.loops_of_strangers import LOOPS


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, repo_root: Path) -> Path:
    """The folder of the recorded loops."""
    folder = tmp_path_factory.mktemp("loops")
    record_loops(repo_root, folder)
    return folder


@pytest.mark.parametrize("name", LOOPS)
def test_steps_phases_owners_and_batches_are_those_of_the_loop(runs: Path, name: str) -> None:
    (rank,) = analyze(read_trace([runs / f"{name}.json"])).ranks
    assert told(rank) == json.loads((runs / f"{name}.ledger.json").read_text())
    # What nobody names is small: random states, counters, what was made of a rollout and is kept for many steps. What
    # another thread makes in its own passes is of no phase, and may be live at the peak.
    assert name == "hogwild" or rank.peak.by_category["unknown"] <= 0.05 * (rank.peak.requested_bytes or 0)
    assert all(step.end_ns is None or step.end_ns > (step.start_ns or 0) for step in rank.steps)
