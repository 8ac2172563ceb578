"""Advice about time: each kind from a made-up profile that needs it, with the time it names; and silence without."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from memtrace.analysis.results.report import Finding
from memtrace.analysis.time.findings import time_findings
from memtrace.analysis.time.overlap import time_of_rank
from memtrace.store.trace import RankTrace
from tests.analysis.small_profile import Profile
from tests.analysis.small_trace import phase as phase_row
from tests.analysis.small_trace import step as step_row

US = 1000
LOADER = "enumerate(DataLoader)#_SingleProcessDataLoaderIter.__next__"


def findings_of(rank: RankTrace) -> dict[str, Finding]:
    time = time_of_rank(rank)
    assert time is not None
    return {one.slug: one for one in time_findings(rank, time)}


def busy() -> Profile:
    """Two steps of 100 µs in which the GPU computes all the time."""
    return Profile().step(1, 0, 100).gpu(0, 100).step(2, 100, 200).gpu(100, 200)


def waiting() -> Profile:
    """Two steps of 100 µs in which the GPU computes for the first half."""
    return Profile().step(1, 0, 100).gpu(0, 50).step(2, 100, 200).gpu(100, 150)


def test_a_busy_gpu_needs_no_advice() -> None:
    profile = busy().communication(10, 90).add("user_annotation", LOADER, 0, 90)
    assert findings_of(profile.add("cuda_runtime", "cudaMalloc", 20, 60).rank()) == {}


def test_communication_that_nothing_hides() -> None:
    found = findings_of(waiting().communication(40, 70, launch=40).communication(140, 160, launch=140).rank())
    assert set(found) == {"exposed-communication"}
    one = found["exposed-communication"]
    assert one.saves_ns == (20 + 10) * US // 2
    assert (one.evidence["communication_ns"], one.evidence["hidden_ns"]) == ((30 + 20) * US // 2, 10 * US)
    assert (one.evidence["window_ns"], one.evidence["num_steps"], one.evidence["mostly"]) == (100 * US, 2, "AllReduce")


def test_data_that_comes_late() -> None:
    found = findings_of(waiting().add("user_annotation", LOADER, 30, 90).rank())
    assert set(found) == {"data-stall"}
    assert found["data-stall"].saves_ns == 40 * US // 2
    assert found["data-stall"].evidence["data_ns"] == 60 * US // 2


def test_an_allocator_that_goes_to_the_device() -> None:
    profile = waiting().add("cuda_runtime", "cudaFree", 60, 80).add("cuda_runtime", "cudaMalloc", 80, 90)
    found = findings_of(profile.add("cuda_runtime", "cudaMalloc", 110, 130).rank())
    assert set(found) == {"allocator-stall"}
    one = found["allocator-stall"]
    assert (one.saves_ns, one.evidence["allocator_ns"]) == (30 * US // 2, 50 * US // 2)
    assert one.evidence["num_device_frees"] == 1


@pytest.mark.parametrize(("lost_us", "is_told"), [(3.75, False), (4, True)])
def test_less_than_a_fiftieth_of_the_step_is_not_told(lost_us: float, is_told: bool) -> None:
    # Two steps of 100 µs each: a fiftieth of both is 4 µs.
    ways: list[Callable[[Profile], Profile]] = [
        lambda profile: profile.communication(60, 60 + lost_us),
        lambda profile: profile.add("user_annotation", LOADER, 60, 60 + lost_us),
        lambda profile: profile.add("cuda_runtime", "cudaMalloc", 60, 60 + lost_us),
    ]
    for way in ways:
        assert bool(findings_of(way(waiting()).rank())) == is_told


def test_without_steps_the_figures_are_of_the_whole_profile() -> None:
    found = findings_of(Profile().gpu(0, 10).communication(10, 20).rank())["exposed-communication"]
    assert (found.saves_ns, found.evidence["window_ns"], found.evidence["num_steps"]) == (10 * US, 20 * US, None)


ALL_REDUCE = "ncclDevKernel_AllReduce_Sum_f32_RING_LL(x)"


def accumulating(reduce_early: bool, *, forward_reduces: bool = False, collective: str = ALL_REDUCE) -> RankTrace:
    """A recorded step of 100 µs with two micro-batches, reduced after each of them or after the last."""
    profile = Profile().gpu(0, 35).gpu(50, 85)
    if reduce_early:
        profile.communication(30, 45, launch=30, name=collective)
    if forward_reduces:
        profile.communication(1, 2, launch=1)
    profile.communication(85, 95, launch=80)
    phases = [("forward", 0, 0, 20), ("backward", 0, 20, 48), ("forward", 1, 50, 65), ("backward", 1, 65, 90)]
    rows = [phase_row(name, 1, start * US, end * US) | {"microbatch": batch} for name, batch, start, end in phases]
    return profile.recorded(steps=[step_row(1, 0, 100 * US)], phases=rows)


def test_gradients_reduced_in_every_micro_batch() -> None:
    one = findings_of(accumulating(True))["no-sync"]
    assert (one.saves_ns, one.severity) == (10 * US, "warning")
    assert (one.evidence["num_early_all_reduces"], one.evidence["num_last_all_reduces"]) == (1, 1)
    assert one.evidence["rests_on_inference"] is False


def test_gradients_reduced_once_a_step() -> None:
    assert set(findings_of(accumulating(False))) == {"exposed-communication"}


def test_all_reduces_of_tensor_parallelism_are_not_called_needless() -> None:
    assert "no-sync" not in findings_of(accumulating(True, forward_reduces=True))


def test_other_communication_before_the_last_micro_batch_is_not_called_needless() -> None:
    assert "no-sync" not in findings_of(accumulating(True, collective="ncclDevKernel_AllGather_RING_LL(x)"))
