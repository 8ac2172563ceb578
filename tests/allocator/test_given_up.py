"""Histories that do not follow from their start: the proof is given up after a bounded effort, and that is said."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from memtrace.allocator import recorded as effort
from memtrace.allocator.replay import replay_device, state_at
from memtrace.allocator.whatif import read_recording
from memtrace.analysis.report import analyze
from memtrace.errors import MemtraceError
from memtrace.store.snapshots.torch_snapshot import read_snapshot
from memtrace.store.trace import RankTrace, Trace
from tests.allocator.test_replay import random_recording
from tests.lost_events import without_pairs

Event = dict[str, Any]


def with_events(snapshot: dict[str, Any], change: Callable[[list[Event]], list[Event]]) -> RankTrace:
    return read_snapshot({**snapshot, "device_traces": [change(snapshot["device_traces"][0])]}, where="changed")


def holed() -> RankTrace:
    return with_events(random_recording("", 1).snapshot(), lambda events: without_pairs(events, 0.3))


def test_a_short_history_is_compared_to_its_end_however_often_it_contradicts() -> None:
    fidelity = replay_device(holed(), "cuda:0").fidelity
    assert fidelity.replayable
    assert 0 < fidelity.allocations_matched < fidelity.allocations


def test_a_proof_that_fails_too_often_is_given_up_in_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(effort, "LEAST_BLOCKS", 5 * effort.EACH)
    rank = holed()
    replay = replay_device(rank, "cuda:0")
    assert not replay.fidelity.replayable
    reason = replay.fidelity.reason or ""
    assert "does not follow from its start" in reason
    assert reason.count(". ") == 0
    assert reason.endswith(".")
    assert state_at(rank, "cuda:0", len(rank.table("events")) - 1) is None
    with pytest.raises(MemtraceError, match="does not follow from its start"):
        read_recording(rank, "cuda:0")


def test_the_report_of_such_a_history_says_so_and_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(effort, "LEAST_BLOCKS", 5 * effort.EACH)
    (device,) = analyze(Trace(header={}, ranks=(holed(),), path="holed")).ranks
    notes = {note.slug: note.message for note in device.warnings}
    assert "does not follow from its start" in notes["not-replayed"]
    assert device.peak.requested_bytes
    assert device.peak.allocated_bytes is None
    assert device.peak.reserved_bytes


def test_a_history_that_follows_costs_nothing_of_the_effort(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(effort, "LEAST_BLOCKS", 0)
    monkeypatch.setattr(effort, "EACH", 10**9)
    for warm in (False, True):
        rank = read_snapshot(random_recording("", 2, warm=warm).snapshot(), where="whole")
        assert replay_device(rank, "cuda:0").fidelity.is_exact


def test_what_a_contradiction_may_look_at_is_bounded_by_the_events(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(effort, "LEAST_BLOCKS", 0)
    spent: list[int] = []
    look_at = effort.Effort.look_at

    def counted(self: effort.Effort, num_blocks: int) -> None:
        spent.append(effort.EACH + 2 * num_blocks)
        look_at(self, num_blocks)

    monkeypatch.setattr(effort.Effort, "look_at", counted)
    rank = holed()
    assert not replay_device(rank, "cuda:0").fidelity.replayable
    assert sum(spent[:-1]) <= len(rank.table("events")) < sum(spent)
