"""Where the time of real profiles goes, to the nanosecond: ours against a plain computation on their raw events."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from memtrace.analysis.results.time import TimeResult, TimeSplit
from memtrace.analysis.time.overlap import time_of_rank
from memtrace.store.reading.read import read_trace
from tests.analysis import raw_profile

WITH_GPU = (
    "bert-inference-h100",
    "gpu-user-annotation",
    "norm-layers-forward-backward-mi300x",
    "resnet50-train-v100-2021-format",
    "train-128-ranks-sampled-rank0",
    "train-128-ranks-sampled-rank1",
    "triton-kernel",
    "vit-inference-h100",
    "vit-inference-mi300x",
)
WITHOUT_STEPS = ("gpu-user-annotation", "norm-layers-forward-backward-mi300x")


def profile(folder: Path, name: str) -> Path:
    return folder / "kineto" / f"{name}.json.gz"


def time_of(path: Path) -> TimeResult | None:
    return time_of_rank(read_trace(path).ranks[0])


def figures(split: TimeSplit, expected: dict[str, int]) -> dict[str, int]:
    """Return those figures of a split that are expected."""
    return {name: getattr(split, name) for name in expected}


def test_every_profile_is_among_those_that_are_compared(shared_data: Path) -> None:
    there = {path.name.removesuffix(".json.gz") for path in (shared_data / "kineto").iterdir()}
    assert there - set(WITH_GPU) == {"cpu-only-rank34-of-300"}


@pytest.mark.parametrize("name", WITH_GPU)
def test_the_whole_file_and_each_step_are_as_the_raw_events_say(shared_data: Path, name: str) -> None:
    path = profile(shared_data, name)
    events, base = raw_profile.read_events(path)
    found = time_of(path)
    assert found is not None
    expected = raw_profile.whole_file(events, base)
    assert figures(found.whole, expected) == expected
    steps = raw_profile.by_step(events, base)
    assert bool(steps) == (name not in WITHOUT_STEPS)
    assert [(one.step, (one.start_ns, one.end_ns)) for one in found.steps] == [step[:2] for step in steps]
    assert [figures(one, step[2]) for one, step in zip(found.steps, steps, strict=True)] == [step[2] for step in steps]
    # No file here launches work that none of its steps, or no call, accounts for.
    assert (found.num_unlinked, found.num_outside_steps, found.unfinished_steps) == (0, 0, ())


@pytest.mark.parametrize("name", ["triton-kernel", "train-128-ranks-sampled-rank0", "bert-inference-h100"])
def test_a_list_of_events_reads_as_the_object_around_it(shared_data: Path, tmp_path: Path, name: str) -> None:
    with gzip.open(profile(shared_data, name)) as file:
        document = json.load(file)
    document.pop("baseTimeNanoseconds", None)
    (tmp_path / "object.json").write_text(json.dumps(document))
    (tmp_path / "list.json").write_text(json.dumps(document["traceEvents"]))
    as_list = time_of(tmp_path / "list.json")
    assert as_list is not None
    assert as_list == time_of(tmp_path / "object.json")


def test_a_profile_of_the_cpu_says_nothing_about_a_gpu(shared_data: Path) -> None:
    assert time_of(profile(shared_data, "cpu-only-rank34-of-300")) is None


def test_data_loading_of_the_profile_of_2021_is_found(shared_data: Path) -> None:
    path = profile(shared_data, "resnet50-train-v100-2021-format")
    events, base = raw_profile.read_events(path)
    loads = [raw_profile.span(one, base) for one in events if str(one["name"]).startswith("enumerate(DataLoader)")]
    found = time_of(path)
    assert found is not None
    assert len(loads) == 6
    # One load lies in each step, and no two at once.
    assert [one.data_ns for one in found.steps] == [end - start for start, end in sorted(loads)]
    assert all(0 < (one.data_stall_ns or 0) <= one.idle_ns for one in found.steps)
