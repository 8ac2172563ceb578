"""Every real recording is analysed, and exactly right where its own numbers say what right is."""

from __future__ import annotations

from pathlib import Path

import pytest

from memtrace.analysis.report import analyze
from memtrace.report.json.report import report_document
from memtrace.store.reading.read import read_trace
from tests.report.contract import check_report

NAMES = (
    "anonymised-physically-inconsistent.pickle",
    "attention-forward-backward-from-process-start.pickle",
    "gpt-forward-warm-nets-to-zero.pickle",
    "gpt-forwards-late-history.pickle",
    "gpt-inference-from-process-start.pickle",
    "gpt-medium-512-train-warm-step-unsplit-live-blocks.pickle",
    "gpt-medium-inference-late-history.pickle",
    "gpt-medium-train-warm-step-late-history.pickle",
    "gpt-train-3-steps-from-process-start-batch100.pickle",
    "gpt-train-3-steps-from-process-start-batch200.pickle",
    "gpt-train-windows-frameless-backward.pickle",
    "kv-cache-inference-one-stray-event.pickle",
    "segments-only-at-oom-torch-2.1.pickle",
    "segments-only-fragmented.pickle",
    "segments-only-one-stray-event.pickle",
    "segments-only-three-pools-pending-free.pickle",
)
WITHOUT_HISTORY = tuple(name for name in NAMES if name.startswith(("kv-cache", "segments-only")))
CONSISTENT = tuple(name for name in NAMES if not name.startswith("anonymised"))


@pytest.mark.parametrize("name", NAMES)
def test_snapshot_gives_a_report_of_the_contract(shared_data: Path, name: str) -> None:
    check_report(report_document(analyze(read_trace(shared_data / "snapshots" / name))))


def test_every_profile_gives_a_report_of_the_contract(shared_data: Path) -> None:
    paths = sorted((shared_data / "kineto").iterdir())
    assert paths
    for path in paths:
        check_report(report_document(analyze(read_trace(path))))


@pytest.mark.parametrize("name", CONSISTENT)
def test_end_equals_the_blocks_and_totals_of_the_snapshot(shared_data: Path, name: str) -> None:
    trace = read_trace(shared_data / "snapshots" / name)
    rank, report = trace.ranks[0], analyze(trace).ranks[0]
    blocks, segments = rank.table("blocks"), rank.table("segments")
    in_use = blocks["state"] == rank.string_id("active_allocated")
    pending = blocks["state"] == rank.string_id("active_pending_free")
    assert report.end.requested_bytes == blocks["requested_bytes"][in_use].sum()
    assert report.end.pending_free_bytes == blocks["requested_bytes"][pending].sum()
    assert report.end.allocated_bytes == segments["allocated_bytes"].sum()
    assert report.end.reserved_bytes == segments["total_bytes"].sum()


@pytest.mark.parametrize("name", [name for name in NAMES if name not in WITHOUT_HISTORY])
def test_peak_equals_a_plain_walk_over_the_history(shared_data: Path, name: str) -> None:
    trace = read_trace(shared_data / "snapshots" / name)
    rank, report = trace.ranks[0], analyze(trace).ranks[0]
    events, initial = rank.table("events"), rank.table("initial_blocks")
    live = int(initial["size_bytes"].sum())
    in_use = set(initial["address"].tolist())
    peak = live
    actions = [rank.strings[one] for one in events["action"]]
    for action, address, size in zip(actions, events["address"].tolist(), events["size_bytes"].tolist(), strict=True):
        if action == "alloc":
            in_use.add(address)
            live += size
        elif action in ("free_requested", "free_completed") and address in in_use:
            in_use.remove(address)
            live -= size
        peak = max(peak, live)
    assert report.peak.requested_bytes == peak
    assert report.end.requested_bytes == live


@pytest.mark.parametrize("name", WITHOUT_HISTORY)
def test_without_history_peak_is_the_end_at_no_known_time(shared_data: Path, name: str) -> None:
    report = analyze(read_trace(shared_data / "snapshots" / name)).ranks[0]
    assert (report.peak.time_ns, report.peak.step) == (None, None)
    assert report.peak.allocated_bytes == report.end.allocated_bytes
    assert "no-history" in [note.slug for note in report.warnings]


def test_inconsistent_file_is_said_to_be(shared_data: Path) -> None:
    report = analyze(read_trace(shared_data / "snapshots" / NAMES[0])).ranks[0]
    assert "physically-inconsistent" in [note.slug for note in report.warnings]
