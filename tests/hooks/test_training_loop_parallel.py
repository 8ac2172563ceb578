"""What the training loop makes of replicas and of FSDP2's groups, wherever this torch keeps the latter."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import pytest

from memtrace.hooks.ownership.communication_buffers import FSDP_MODULES
from tests.hooks.conftest import Follow
from tests.hooks.fake_torch import FakeTorch, Tensor
from tests.hooks.followed import Followed


class FSDPParamGroup:
    """A group of one parameter, which is gathered whole before a forward and reduced after a backward."""

    _module_fqn = "block"

    def __init__(self, shard: Tensor) -> None:
        self.is_sharded = True
        self.fsdp_params = [
            SimpleNamespace(
                _param_fqn="block.weight",
                sharded_param=shard,
                all_gather_outputs=[Tensor(16)],
                unsharded_accumulated_grad=Tensor(16),
            )
        ]
        self._all_gather_result: Any = SimpleNamespace(all_gather_output=Tensor(32))
        self.comm_ctx = SimpleNamespace(reduce_scatter_states=[SimpleNamespace(reduce_scatter_input=Tensor(32))])

    def wait_for_unshard(self) -> None:
        """Gather."""
        self.is_sharded = False

    def post_backward(self) -> None:
        """Reduce."""
        self.is_sharded = True


def names(followed: Followed, category: str, **having: object) -> list[str]:
    """Return the names of what was seen in a category."""
    return [row["name"] for row in followed.rows("owners", category=category, **having)]


@pytest.mark.parametrize("path", FSDP_MODULES)
def test_groups_of_fsdp2_are_followed_once_the_program_has_loaded_them(
    followed: Followed, fake: FakeTorch, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    shard = Tensor(8)
    group = FSDPParamGroup(shard)
    model = fake.model_class("Net")(lambda: None)
    optimizer = fake.optimizer_class("SGD")([shard])
    model()
    monkeypatch.setitem(sys.modules, path, SimpleNamespace(FSDPParamGroup=FSDPParamGroup))
    model = fake.model_class("Net")(lambda: group.wait_for_unshard())
    model()
    fake.loss(during=lambda: group.post_backward()).backward()
    held = ["all-gather of block", "gathered block.weight", "reduce-scatter of block"]
    assert names(followed, "communication") == held
    assert names(followed, "gradient") == ["unsharded block.weight"]
    group.wait_for_unshard()
    optimizer.step()
    # No module holds a shard while it is gathered: its group knows its name.
    assert names(followed, "parameter", address=shard.address, step=1) == ["block.weight"]


@pytest.mark.parametrize("is_found", [True, False])
def test_only_where_the_groups_of_fsdp2_are_not_found_a_warning_says_so(
    followed: Followed, fake: FakeTorch, monkeypatch: pytest.MonkeyPatch, is_found: bool
) -> None:
    if is_found:
        monkeypatch.setitem(sys.modules, FSDP_MODULES[0], SimpleNamespace(FSDPParamGroup=FSDPParamGroup))
    fake.model_class("Net")()()
    assert followed.warnings() == []
    sharded = type("FSDPNet", (fake.model_class("FSDPModule"),), {})()
    sharded()
    sharded()
    assert followed.warnings() == ([] if is_found else ["fsdp-missing"])


def test_a_group_of_a_torch_that_keeps_less_of_it_ends_no_recording(
    followed: Followed, fake: FakeTorch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, FSDP_MODULES[1], SimpleNamespace(FSDPParamGroup=FSDPParamGroup))
    group = FSDPParamGroup(Tensor(8))
    (parameter,) = group.fsdp_params
    parameter.all_gather_output = parameter.all_gather_outputs[0]
    del parameter.all_gather_outputs, parameter.unsharded_accumulated_grad, group.comm_ctx.reduce_scatter_states
    optimizer = fake.optimizer_class("SGD")([])
    fake.model_class("Net")(lambda: group.wait_for_unshard())()
    group.post_backward()
    optimizer.step()
    assert names(followed, "communication") == ["all-gather of block", "gathered block.weight"]
    assert followed.steps() == [0, 1]


def test_a_parameter_that_a_module_holds_has_the_name_it_has_there(
    followed: Followed, fake: FakeTorch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, FSDP_MODULES[0], SimpleNamespace(FSDPParamGroup=FSDPParamGroup))
    shard = Tensor(8)
    group = FSDPParamGroup(shard)
    optimizer = fake.optimizer_class("SGD")([shard])
    model = fake.model_class("Net")(lambda: group.wait_for_unshard(), weight=shard)
    model()
    fake.loss(of=[shard], during=lambda: group.post_backward()).backward()
    optimizer.step()
    assert names(followed, "parameter", address=shard.address, step=1) == ["weight"]


def test_outside_the_window_groups_are_not_looked_at(follow: Follow, monkeypatch: pytest.MonkeyPatch) -> None:
    followed = follow(steps="5")
    monkeypatch.setitem(sys.modules, FSDP_MODULES[0], SimpleNamespace(FSDPParamGroup=FSDPParamGroup))
    group = FSDPParamGroup(Tensor(8))
    followed.fake.model_class("Net")(lambda: group.wait_for_unshard())()
    assert names(followed, "communication") == []


def test_a_replica_made_before_the_recording_is_followed_from_its_first_forward(follow: Follow) -> None:
    fake = FakeTorch()
    weight = Tensor(8)
    replica = fake.Replicated(weight=weight, gradient_as_bucket_view=True)
    replica.gradient_as_bucket_view = True
    followed = follow(fake)
    replica()
    fake.loss(of=[weight]).backward()
    fake.optimizer_class("SGD")([weight]).step()
    assert [row["replica"] for row in followed.rows("replica_forwards")] == [0]
    assert names(followed, "communication") == ["bucket"]


def test_a_replica_is_asked_about_itself_when_a_step_ends(followed: Followed, fake: FakeTorch) -> None:
    replica = fake.Replicated()
    optimizer = fake.optimizer_class("SGD")([])
    replica()
    replica.logger = object()
    replica._get_ddp_logging_data = lambda: {"bucket_sizes": "64, 32"}
    assert followed.written("bucket") == []
    fake.loss().backward()
    optimizer.step()
    assert [(record["step"], record["size_bytes"]) for record in followed.written("bucket")] == [(1, 64), (1, 32)]
