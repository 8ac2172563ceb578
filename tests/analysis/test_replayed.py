"""Allocated bytes inside a history: from the model of the allocator, exact or not there at all."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from memtrace.analysis.device.device_history import build_history
from memtrace.analysis.report import analyze
from memtrace.store.reading.read import read_trace

WITH_HISTORY = (
    "attention-forward-backward-from-process-start",
    "gpt-forward-warm-nets-to-zero",
    "gpt-forwards-late-history",
    "gpt-inference-from-process-start",
    "gpt-medium-512-train-warm-step-unsplit-live-blocks",
    "gpt-medium-inference-late-history",
    "gpt-medium-train-warm-step-late-history",
    "gpt-train-3-steps-from-process-start-batch100",
    "gpt-train-3-steps-from-process-start-batch200",
)


@pytest.mark.parametrize("name", WITH_HISTORY)
def test_allocated_is_known_at_every_moment_and_ends_as_the_segments_say(shared_data: Path, name: str) -> None:
    (rank,) = read_trace(shared_data / "snapshots" / f"{name}.pickle").ranks
    history = build_history(rank, "cuda:0", owns_marks=False)
    allocated, requested = history.levels.allocated, history.levels.requested
    reserved, pending = history.levels.reserved, history.levels.pending
    assert allocated is not None
    assert reserved is not None
    assert pending is not None
    assert int(allocated[-1]) == int(rank.table("segments")["allocated_bytes"].sum())
    assert np.all(requested <= allocated)
    assert np.all(allocated <= reserved)


def test_a_level_with_a_doubt_is_left_out_and_the_doubt_is_told(shared_data: Path) -> None:
    report = analyze(read_trace(shared_data / "snapshots" / "gpt-train-windows-frameless-backward.pickle")).ranks[0]
    assert report.peak.allocated_bytes is None
    assert report.end.allocated_bytes is not None
    (note,) = [note for note in report.warnings if note.slug == "not-replayed"]
    assert "no event shows by how much" in note.message


def test_a_history_that_the_model_cannot_follow_has_none_and_says_why(shared_data: Path) -> None:
    report = analyze(read_trace(shared_data / "snapshots" / "anonymised-physically-inconsistent.pickle")).ranks[0]
    assert report.peak.allocated_bytes is None
    assert "not-replayed" in {note.slug for note in report.warnings}
