"""A rank on the device of another one is told, with what it holds there."""

from __future__ import annotations

from collections.abc import Mapping

from memtrace.analysis.report import analyze
from memtrace.analysis.results.report import Finding
from memtrace.store.trace import RankTrace
from tests.analysis.small_trace import event_rows, rank_trace, trace, window

OWN, LITTLE = 1000, 30


def rank(number: int, sizes: Mapping[str, int], *, host: str = "node") -> RankTrace:
    """Return a rank that holds so many bytes on each of some devices."""
    events = [row for device, size in sizes.items() for row in event_rows([("alloc", 1, size)], device=device)]
    header = {"rank": number, "world_size": 2, "host": host, "pid": number}
    return rank_trace(header=header, events=events, windows=[window(0, len(events), initial=0)])


def found_in(*ranks: RankTrace) -> list[Finding]:
    return [one for one in analyze(trace(*ranks)).findings if one.slug == "several-contexts"]


def test_a_rank_on_the_device_of_another_is_told() -> None:
    first = rank(0, {"cuda:0": OWN})
    (found,) = found_in(first, rank(1, {"cuda:0": LITTLE, "cuda:1": OWN}), rank(2, {"cuda:0": LITTLE, "cuda:2": OWN}))
    assert found.evidence == {
        "device": "cuda:0",
        "rank_of_device": 0,
        "ranks": [1, 2],
        "held_there_bytes": 2 * LITTLE,
    }
    assert "set_device" in found.change


def test_devices_of_other_hosts_and_of_nobody_are_no_matter() -> None:
    first = rank(0, {"cuda:0": OWN})
    assert found_in(first, rank(1, {"cuda:1": OWN})) == []
    assert found_in(first, rank(1, {"cuda:0": LITTLE, "cuda:1": OWN}, host="other")) == []
    assert found_in(first, rank(1, {"cuda:1": OWN, "cuda:2": LITTLE})) == []
    assert found_in(first, rank(1, {"cpu": 2 * OWN, "cuda:1": OWN})) == []
