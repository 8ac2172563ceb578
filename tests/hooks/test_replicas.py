"""What is read of DistributedDataParallel's own words: buckets each time they change, timings once, nothing in vain."""

from __future__ import annotations

from typing import Any

import pytest

from memtrace.hooks.ownership.ddp_buckets import Replicas
from memtrace.hooks.parts.chunk import Row


class Model:
    """Says of itself what a replicated model says."""

    def __init__(self, **logged: Any) -> None:
        self.logger = object()
        self.require_backward_grad_sync = True
        self.logged = logged
        self.num_reads = 0

    def _get_ddp_logging_data(self) -> dict[str, Any]:
        self.num_reads += 1
        return self.logged


class Followed:
    """Replicas, and what they wrote."""

    def __init__(self) -> None:
        self.buckets: list[dict[str, Any]] = []
        self.forwards: list[Row] = []
        self.timings: list[Row] = []
        self.replicas = Replicas(
            write=self.buckets.append, on_forward=self.forwards.append, on_timing=self.timings.append
        )

    def step(self, model: Any, number: int) -> None:
        self.replicas.forward(model, step=number, microbatch=0)
        self.replicas.step_ended(number)


def timed(iteration: int, **more: int) -> dict[str, int]:
    times = {"backward_compute_time_start": 100, "backward_compute_time": 50, "backward_comm_time": 30}
    return {"iteration": iteration, **times, "backward_compute_comm_overlap_time": 20, **more}


def test_buckets_are_written_when_they_change() -> None:
    followed, model = Followed(), Model(bucket_sizes="300")
    followed.replicas.add(model, step=0)
    followed.step(model, 1)
    model.logged |= {"rebuilt_bucket_sizes": "200, 100", "rebuilt_per_bucket_param_indices": "2 1, 0"}
    followed.step(model, 2)
    followed.step(model, 3)
    rows = [(one["step"], one["bucket"], one["size_bytes"], one["num_parameters"]) for one in followed.buckets]
    assert rows == [(0, 0, 300, None), (2, 0, 200, 2), (2, 1, 100, 1)]


def test_a_timing_is_written_once_and_unused_bytes_of_the_first_only() -> None:
    followed, model = Followed(), Model(**timed(1, unused_parameter_size=64))
    followed.replicas.add(model, step=0)
    followed.step(model, 1)
    model.logged = timed(2, unused_parameter_size=128)
    followed.step(model, 2)
    assert [(row[1], row[3:]) for row in followed.timings] == [(1, (50, 30, 20, 64)), (2, (50, 30, 20, None))]


def test_a_timing_that_torch_could_not_take_is_none() -> None:
    followed, model = Followed(), Model(**timed(1) | {"backward_comm_time": -1})
    followed.replicas.add(model, step=0)
    assert followed.timings == []


def test_a_forward_says_whether_it_synchronizes_and_only_such_steps_are_read() -> None:
    followed, model = Followed(), Model()
    followed.replicas.add(model, step=0)
    model.require_backward_grad_sync = False
    followed.step(model, 1)
    assert model.num_reads == 1
    model.require_backward_grad_sync = True
    followed.step(model, 2)
    assert [(row[1], row[4]) for row in followed.forwards] == [(1, False), (2, True)]
    assert model.num_reads == 2


def test_reading_becomes_seldom() -> None:
    followed, model = Followed(), Model()
    followed.replicas.add(model, step=0)
    for number in range(1, 201):
        followed.step(model, number)
    assert model.num_reads <= 25


def test_a_model_that_logs_nothing_is_followed_all_the_same() -> None:
    followed, model = Followed(), Model(bucket_sizes="300")
    model.logger = None
    followed.replicas.add(model, step=0)
    followed.step(model, 1)
    assert (followed.buckets, len(followed.forwards)) == ([], 1)


def test_a_model_that_is_gone_is_forgotten_and_its_successor_has_a_number_of_its_own() -> None:
    followed, model = Followed(), Model()
    followed.replicas.add(model, step=0)
    del model
    followed.replicas.step_ended(1)
    assert followed.replicas.models() == []
    other = Model()
    followed.replicas.add(other, step=2)
    followed.step(other, 2)
    assert [row[3] for row in followed.forwards] == [1]


@pytest.mark.parametrize("name", ["backward_compute_time_start", "backward_compute_time", "backward_comm_time"])
def test_a_timing_of_which_torch_tells_a_part_is_none(name: str) -> None:
    logged = timed(1)
    del logged[name]
    followed, model = Followed(), Model(**logged)
    followed.replicas.add(model, step=0)
    assert followed.timings == []


def test_models_are_read_in_their_first_sixteen_steps_and_then_in_each_fiftieth() -> None:
    followed, model = Followed(), Model()
    followed.replicas.add(model, step=0)
    read_in: list[int] = []
    for number in range(1, 201):
        before = model.num_reads
        followed.step(model, number)
        read_in += [number] * (model.num_reads - before)
    assert read_in == [*range(1, 17), 50, 100, 150, 200]
