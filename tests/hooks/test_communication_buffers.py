"""Whose methods are wrapped to see what DDP holds, and what is written when they run."""

from __future__ import annotations

from collections.abc import Callable
from time import time_ns
from types import SimpleNamespace
from typing import Any

import pytest

from memtrace.hooks.ownership.communication_buffers import Communication
from memtrace.hooks.ownership.ddp_buckets import Replicas
from memtrace.hooks.parts.chunk import Row


class DistributedDataParallel:
    """A replicated model; its name is what memtrace knows it by."""

    require_backward_grad_sync = True


class Followed:
    """What is wrapped of a torch that has both classes, or one that was built without distributed training."""

    def __init__(self, *, is_built_with_distributed: bool = True) -> None:
        parallel = SimpleNamespace(DistributedDataParallel=DistributedDataParallel)
        torch = SimpleNamespace(nn=SimpleNamespace(parallel=parallel))
        if is_built_with_distributed:
            torch.distributed = SimpleNamespace(Reducer=object())
        self.scopes: list[Row] = []
        self.replicas = Replicas(write=lambda _: None, on_forward=lambda _: None, on_timing=lambda _: None)
        self.communication = Communication(
            torch, emit=lambda _: None, emit_scope=self.scopes.append, replicas=self.replicas, step=lambda: 7
        )
        self.wrapped: dict[str, tuple[Callable[..., None], Callable[..., None]]] = {}
        self.communication.attach(self._around)

    def _around(self, _owner: Any, name: str, before: Callable[..., None], after: Callable[..., None]) -> None:
        self.wrapped[name] = before, after

    def call(self, name: str, *args: Any) -> tuple[int, int]:
        """Run a wrapped method, and return the times between which it ran."""
        before, after = self.wrapped[name]
        began_ns = time_ns()
        before(*args)
        after(*args)
        return began_ns, time_ns()


@pytest.mark.parametrize("name", ["_ddp_init_helper", "_rebuild_buckets"])
def test_a_reducer_that_makes_buckets_leaves_a_scope_of_that_time(name: str) -> None:
    followed, replica = Followed(), DistributedDataParallel()
    began_ns, ended_ns = followed.call(name, replica)
    ((path, kind, start_ns, end_ns),) = followed.scopes
    assert (path, kind) == ("DistributedDataParallel.reducer", "Reducer")
    assert began_ns <= start_ns <= end_ns <= ended_ns


def test_a_replica_is_followed_once_its_reducer_is_built_and_not_when_buckets_are_rebuilt() -> None:
    followed, replica = Followed(), DistributedDataParallel()
    followed.call("_rebuild_buckets", object())
    assert followed.replicas.models() == []
    followed.call("_ddp_init_helper", replica)
    assert followed.replicas.models() == [replica]


def test_without_distributed_training_only_the_model_is_wrapped() -> None:
    assert set(Followed(is_built_with_distributed=False).wrapped) == {"_ddp_init_helper"}


def test_only_replicated_models_are_followed_from_their_forward_on() -> None:
    followed, replica = Followed(), DistributedDataParallel()
    followed.communication.root_runs(SimpleNamespace())
    followed.communication.root_runs(replica)
    followed.communication.root_runs(replica)
    assert followed.replicas.models() == [replica]
