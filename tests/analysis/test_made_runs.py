"""Runs that are made up at random: peak, end and steps as a plain loop over their events finds them."""

from __future__ import annotations

import pytest

from memtrace.analysis.report import analyze
from memtrace.store.trace import RankTrace, Trace
from tests.gold.made_runs import MADE_RUNS, ranks_of


def levels(rank: RankTrace) -> list[tuple[int, int]]:
    """Return time and requested bytes after each allocation and each free that is asked for."""
    live: dict[int, int] = {}
    found = []
    for row in rank.table("events").rows():
        action = rank.strings[row["action"]]
        if action == "alloc":
            live[row["address"]] = row["size_bytes"]
        elif action in {"free_requested", "free_completed"}:
            live.pop(row["address"], None)
        else:
            continue
        found.append((row["time_ns"], sum(live.values())))
    return found


@pytest.mark.parametrize("number", MADE_RUNS)
def test_peak_and_end_are_those_of_a_plain_loop_over_the_events(number: int) -> None:
    _, ranks = ranks_of(number)
    reports = analyze(Trace(header={}, ranks=ranks, path="run")).ranks
    for rank, report in zip(ranks, reports, strict=True):
        found = levels(rank)
        assert report.peak.requested_bytes == max(level for _, level in found)
        assert report.end.requested_bytes == found[-1][1]
