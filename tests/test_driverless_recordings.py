"""The recordings in samples/recordings: each shows what it is there for, and the model reproduces it event by event."""

from __future__ import annotations

from pathlib import Path

import pytest

from memtrace.allocator.replay import replay_device
from memtrace.analysis.report import analyze
from memtrace.analysis.results.report import RankReport
from memtrace.schema.names import Category
from memtrace.store.reading.read import read_trace
from memtrace.store.trace import RankTrace

FOLDER = Path(__file__).parent.parent / "samples" / "recordings"
NAMES = ("expandable-segments", "graph", "out-of-memory", "two-devices", "two-streams")
WIDTH, INNER = 256, 1024
PARAMETER_BYTES = 4 * (2 * WIDTH * INNER + WIDTH + INNER)


def rank_of(name: str) -> RankTrace:
    (rank,) = read_trace([FOLDER / f"{name}.json.gz"]).ranks
    return rank


def reports(name: str) -> dict[str, RankReport]:
    found = analyze(read_trace([FOLDER / f"{name}.json.gz"])).ranks
    return {one.device: one for one in found if one.device != "cpu"}


def test_there_is_a_test_for_each() -> None:
    assert sorted(path.name.partition(".")[0] for path in FOLDER.glob("*.json.gz")) == sorted(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_the_model_reproduces_it_and_it_says_that_no_gpu_took_part(name: str) -> None:
    rank = rank_of(name)
    assert "NVIDIA A100" in rank.header["environment"]["MEMTRACE_DRIVERLESS"]
    for device in reports(name):
        fidelity = replay_device(rank, device).fidelity
        assert fidelity.replayable
        assert fidelity.allocations == fidelity.allocations_matched > 0


@pytest.mark.parametrize("name", NAMES)
def test_parameters_are_known_by_their_owners(name: str) -> None:
    for report in reports(name).values():
        assert report.peak.by_category[Category.PARAMETER.value] == PARAMETER_BYTES


def test_segments_grow() -> None:
    assert rank_of("expandable-segments").table("segments")["is_expandable"].any()


def test_a_request_fails_though_torch_gave_back_what_it_could() -> None:
    (report,) = reports("out-of-memory").values()
    assert report.oom is not None
    request, largest = report.oom.request_bytes or 0, report.oom.largest_free_block_bytes or 0
    assert request > max(report.oom.free_bytes or 0, largest) > 0


def test_blocks_of_another_stream_are_awaited() -> None:
    events = rank_of("two-streams").table("events")
    assert len(set(events["stream"].tolist())) == 2


def test_a_graph_has_a_pool_of_its_own() -> None:
    rank = rank_of("graph")
    pools = {rank.text(one) for one in rank.table("segments")["pool_id"].tolist()}
    assert len(pools) == 2


def test_two_devices_hold_the_same() -> None:
    found = reports("two-devices")
    assert sorted(found) == ["cuda:0", "cuda:1"]
    assert found["cuda:0"].peak.allocated_bytes == found["cuda:1"].peak.allocated_bytes
