"""Whose storage is whose, as the training loop tells it: inputs, names, saved tensors, states, averages."""

from __future__ import annotations

import gc
from typing import Any

import pytest

from tests.hooks.conftest import Follow
from tests.hooks.fake_torch import FakeTorch, Tensor
from tests.hooks.followed import Followed


def train_step(fake: FakeTorch, model: Any, optimizer: Any, *args: Any, **kwargs: Any) -> None:
    """Run one step."""
    model(*args, **kwargs)
    fake.loss(of=model.parameters()).backward()
    optimizer.step()


def names_of(followed: Followed, tensor: Tensor, **having: object) -> set[str]:
    """Return the names under which a storage was seen."""
    return {row["name"] for row in followed.rows("owners", address=tensor.address, **having)}


def test_inputs_are_seen_whether_they_come_by_position_or_by_keyword(followed: Followed, fake: FakeTorch) -> None:
    image, ids, mask = Tensor(5), Tensor(6), Tensor(7)
    model = fake.model_class("Net")(weight=Tensor(3))
    model([image], input_ids=ids, more={"mask": mask, "name": "a word"})
    seen = {(row["name"], row["address"], row["step"]) for row in followed.rows("owners", category="input")}
    assert seen == {("input", image.address, 1), ("input_ids", ids.address, 1), ("mask", mask.address, 1)}


def test_inputs_of_inner_modules_are_no_inputs_and_those_of_evaluation_are(followed: Followed, fake: FakeTorch) -> None:
    inner = fake.model_class("Inner")(weight=Tensor(3))
    model = fake.model_class("Net")(lambda: inner(Tensor(5), hidden=Tensor(6)), inner=inner)
    model()
    assert followed.rows("owners", category="input") == []
    with fake.world.no_grad():
        fake.model_class("Other")(weight=Tensor(3))(batch := Tensor(7))
    assert [row["address"] for row in followed.rows("owners", category="input")] == [batch.address]


def test_what_modules_computed_is_no_input(followed: Followed, fake: FakeTorch) -> None:
    with_graph, without = Tensor(5, grad_fn=object()), Tensor(6)
    encode = fake.model_class("Encoder")(lambda _batch: {"states": [without]}, weight=Tensor(3))
    decode = fake.model_class("Decoder")(weight=Tensor(3))
    batch, later = Tensor(7), Tensor(6)
    with fake.world.no_grad():
        encode(batch)
    decode(with_graph, without, later)
    seen = [row["address"] for row in followed.rows("owners", category="input")]
    assert seen == [batch.address, later.address]


def test_what_a_module_returned_and_nobody_kept_is_not_in_the_way_of_an_input(
    followed: Followed, fake: FakeTorch
) -> None:
    net = fake.model_class("Net")(lambda: Tensor(6), weight=Tensor(3))
    address = net().address
    gc.collect()
    batch = Tensor(6)
    batch.untyped_storage().address = address
    net.forward = lambda _batch: None
    net(batch)
    assert [row["address"] for row in followed.rows("owners", category="input")] == [address]


def test_the_targets_of_a_loss_are_inputs_of_the_loss(followed: Followed, fake: FakeTorch) -> None:
    logits, targets = Tensor(5, grad_fn=object()), Tensor(5)
    fake.model_class("NLLLoss")()(logits, target=targets)
    assert [(row["name"], row["address"]) for row in followed.rows("owners", category="input")] == [
        ("input of NLLLoss", targets.address)
    ]


def test_inputs_outside_the_window_are_not_looked_for(follow: Follow) -> None:
    followed = follow(steps="5")
    model = followed.fake.model_class("Net")()
    optimizer = followed.fake.optimizer_class("SGD")([])
    train_step(followed.fake, model, optimizer)
    model(Tensor(5))
    assert followed.rows("owners", category="input") == []


def test_a_parameter_that_two_places_of_a_model_share_has_the_name_of_the_first(
    followed: Followed, fake: FakeTorch
) -> None:
    shared = Tensor(8)
    model = fake.model_class("Net")(
        embedding=fake.model_class("Embedding")(weight=shared), head=fake.model_class("Linear")(weight=shared)
    )
    optimizer = fake.optimizer_class("SGD")([shared])
    train_step(fake, model, optimizer)
    assert names_of(followed, shared) == {"embedding.weight"}
    assert names_of(followed, shared.grad) == {"embedding.weight"}
    assert names_of(followed, optimizer.state[shared]["momentum"]) == {"momentum of embedding.weight"}


def test_a_parameter_that_two_models_share_has_its_name_in_the_model_that_ran_first(
    followed: Followed, fake: FakeTorch
) -> None:
    shared = Tensor(8)
    first = fake.model_class("Encoder")(table=shared)
    second = fake.model_class("Decoder")(head=shared)
    optimizer = fake.optimizer_class("SGD")([shared])
    first()
    second()
    fake.loss(of=[shared]).backward()
    optimizer.step()
    for tensor in (shared, shared.grad):
        assert names_of(followed, tensor) == {"table"}


def test_a_parameter_of_no_model_is_named_by_its_place_in_the_optimizer(followed: Followed, fake: FakeTorch) -> None:
    ours, loose = Tensor(8), Tensor(9)
    model = fake.model_class("Net")(weight=ours)
    optimizer = fake.optimizer_class("SGD")([ours, loose])
    train_step(fake, model, optimizer)
    assert names_of(followed, loose) == {"group 0 parameter 1"}


def test_what_a_step_leaves_is_seen_at_its_end(followed: Followed, fake: FakeTorch) -> None:
    weight, buffer = Tensor(8), Tensor(2)
    model = fake.model_class("Net")(weight=weight, buffer_mean=buffer)
    optimizer = fake.optimizer_class("SGD")([weight])
    train_step(fake, model, optimizer)
    seen = {(row["category"], row["address"], row["size_bytes"]) for row in followed.rows("owners", step=1)}
    state = optimizer.state[weight]["momentum"]
    assert seen == {
        ("parameter", weight.address, 32),
        ("gradient", weight.grad.address, 32),
        ("optimizer_state", state.address, 32),
        ("buffer", buffer.address, 8),
    }


def test_a_model_that_is_gone_owns_nothing(followed: Followed, fake: FakeTorch) -> None:
    model, old = fake.model_class("Net")(weight=Tensor(8)), fake.model_class("Old")(weight=Tensor(9))
    old()
    del old
    gc.collect()
    train_step(fake, model, fake.optimizer_class("SGD")([]))
    assert [row["address"] for row in followed.rows("owners", step=1, category="parameter")] == [
        next(model.parameters()).address
    ]


def test_an_average_owns_its_parameters_though_it_never_runs(followed: Followed, fake: FakeTorch) -> None:
    weight, mean = Tensor(8), Tensor(8)
    average = fake.Averaged(module=fake.model_class("Net")(weight=mean))
    train_step(fake, fake.model_class("Net")(weight=weight), fake.optimizer_class("SGD")([weight]))
    owned = {row["address"] for row in followed.rows("owners", step=1, category="parameter")}
    assert owned == {weight.address, mean.address}
    del average


def saved_by(followed: Followed) -> list[tuple[int, int, int]]:
    """Return address, step and microbatch of what was kept for backward."""
    return [(row["address"], row["step"], row["microbatch"]) for row in followed.rows("saved")]


@pytest.mark.parametrize("gather", [lambda loss: loss, lambda loss: (loss,), lambda loss: [Tensor(1), loss]])
def test_what_a_graph_keeps_is_seen_when_its_backward_begins(followed: Followed, fake: FakeTorch, gather: Any) -> None:
    kept = Tensor(9)
    fake.autograd.backward(gather(fake.loss(saved=[kept, kept])))
    assert saved_by(followed) == [(kept.address, 1, 0)]


def test_what_a_graph_keeps_belongs_to_its_microbatch(followed: Followed, fake: FakeTorch) -> None:
    model, optimizer = fake.model_class("Net")(), fake.optimizer_class("SGD")([])
    kept = [Tensor(9), Tensor(9)]
    for tensor in kept:
        model()
        fake.loss(saved=[tensor]).backward()
    optimizer.step()
    assert saved_by(followed) == [(tensor.address, 1, number) for number, tensor in enumerate(kept)]


def test_losses_that_are_named_are_walked_too(followed: Followed, fake: FakeTorch) -> None:
    first, second = Tensor(9), Tensor(9)
    fake.autograd.backward(tensors=fake.loss(saved=[first]))
    fake.autograd.grad(outputs=[fake.loss(saved=[second])], inputs=())
    assert [address for address, _, _ in saved_by(followed)] == [first.address, second.address]
