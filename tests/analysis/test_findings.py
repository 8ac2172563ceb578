"""Advice comes with a number from the trace itself, and a healthy trace gets none."""

from __future__ import annotations

import pytest

from memtrace.allocator.settings import Settings
from memtrace.analysis.advice import allocator
from memtrace.analysis.advice.find import find_advice
from memtrace.analysis.device.device_history import DeviceHistory, build_history
from memtrace.analysis.device.peak import peak_between
from memtrace.analysis.diagnosis.notes import notes_of_device
from memtrace.analysis.report import analyze
from memtrace.analysis.results.report import Finding
from memtrace.store.snapshots.torch_snapshot import read_snapshot
from memtrace.store.trace import RankTrace
from tests.allocator.simulated import Recorder
from tests.analysis.small_trace import event_rows, owner, rank_trace, step, trace, window

MIB = 1 << 20


def history_of(*sizes_mib: int, settings: Settings | None = None) -> DeviceHistory:
    """Return the history of a program that takes and frees one tensor after the other."""
    recorder = Recorder(settings or Settings())
    for size in sizes_mib:
        address = recorder.malloc(size * MIB)
        assert address is not None
        recorder.free(address)
    rank: RankTrace = read_snapshot(recorder.snapshot(), where="simulated")
    return build_history(rank, "cuda:0", owns_marks=False)


def advice(history: DeviceHistory) -> dict[str, Finding]:
    """Return the findings by slug."""
    return {finding.slug: finding for finding in find_advice(history)}


def test_growing_requests_get_expandable_segments_with_this_traces_own_number() -> None:
    sizes = range(20, 64, 4)
    finding = advice(history_of(*sizes))["expandable-segments"]
    # Every request outgrows the segment before it, so each takes a new one; one that grows needs the largest only.
    assert finding.evidence["max_reserved_bytes"] == sum(sizes) * MIB
    assert finding.evidence["peak_allocated_bytes"] == max(sizes) * MIB
    assert finding.new_peak_bytes == max(sizes) * MIB
    assert finding.saves_bytes == (sum(sizes) - max(sizes)) * MIB
    assert "expandable_segments:True" in finding.change


def test_requests_that_fit_their_segments_get_no_advice() -> None:
    assert advice(history_of(40, 40, 40, 40)) == {}


def test_a_program_that_has_expandable_segments_is_not_told_to_set_them() -> None:
    assert advice(history_of(20, 40, 60, settings=Settings(expandable_segments=True))) == {}


def test_a_history_too_long_to_try_the_setting_says_so_where_it_might_help(monkeypatch: pytest.MonkeyPatch) -> None:
    # Two events a size: the history has 22 of them.
    wasteful, tidy = history_of(*range(20, 64, 4)), history_of(*[40] * 11)
    assert "settings-untried" not in notes(wasteful)
    monkeypatch.setattr(allocator, "MAX_REPLAYED_EVENTS", 21)
    assert "settings-untried" in notes(wasteful)
    assert advice(wasteful) == {}
    assert "settings-untried" not in notes(tidy)


def notes(history: DeviceHistory) -> set[str]:
    """Return the slugs of what was not seen."""
    return {note.slug for note in notes_of_device(history, peak_between(history, 0, history.last_moment))}


def test_inputs_without_any_phase_are_looked_at_all_the_same() -> None:
    events = [
        ("alloc", 1, 100),
        ("alloc", 2, 50),
        ("free_completed", 2, 50),
        ("alloc", 3, 70),
        ("free_completed", 3, 70),
    ]
    rank = rank_trace(
        events=event_rows(events, stack=None),
        windows=[window(0, len(events), initial=0)],
        steps=[step(0, 0, 8), step(1, 8, 35), step(2, 35, 60)],
        owners=[owner(15, 1, 100, "parameter"), owner(25, 2, 50, "input"), owner(45, 3, 70, "input")],
    )
    assert analyze(trace(rank)).ranks[0].peak.allocated_bytes == 170
