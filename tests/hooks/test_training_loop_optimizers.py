"""How the training loop follows optimizers: one or several, inside backward, through a scaler, before it began."""

from __future__ import annotations

import gc
import json

import pytest

from tests.hooks.conftest import Follow
from tests.hooks.fake_torch import FakeTorch, Tensor
from tests.hooks.followed import Followed, Program, in_thread


def test_with_two_optimizers_a_step_ends_when_both_have_stepped(followed: Followed, program: Program) -> None:
    second = followed.fake.optimizer_class("Adam")([Tensor(4)])
    for _ in range(2):
        program.step()
        second.step()
    assert followed.steps() == [0, 1, 2]
    assert [row["detail"] for row in followed.rows("phases", phase="optimizer")] == ["SGD", "Adam"] * 2
    assert [record["class_name"] for record in followed.written("optimizer")] == ["SGD", "Adam"]


def test_an_optimizer_that_steps_again_ends_the_step_that_waited_for_another(
    followed: Followed, program: Program
) -> None:
    waited_for = followed.fake.optimizer_class("Adam")([Tensor(4)])
    program.step()
    assert followed.steps() == [0]
    program.step()
    assert followed.steps() == [0, 1]
    followed.loop.break_off()
    assert followed.steps() == [0, 1, 2]
    del waited_for


def test_a_new_optimizer_at_the_address_of_an_old_one_is_another(followed: Followed) -> None:
    seen: set[int] = set()
    while True:
        program = Program(followed.fake)
        if id(program.optimizer) in seen:
            break
        seen.add(id(program.optimizer))
        program.optimizer = None
        gc.collect()
    program.pass_once()
    program.pass_once()
    assert followed.steps() == [0]


def test_an_optimizer_that_was_freed_is_not_waited_for(followed: Followed, program: Program) -> None:
    second = followed.fake.optimizer_class("Adam")([Tensor(4)])
    del second
    gc.collect()
    program.step()
    assert followed.steps() == [0, 1]


def test_an_optimizer_made_before_the_recording_is_known_by_its_step(follow: Follow) -> None:
    fake = FakeTorch()
    program = Program(fake)
    followed = follow(fake)
    program.step(num_microbatches=2)
    program.step(num_microbatches=2)
    assert followed.steps()[-1] == followed.loop.step - 1
    assert followed.written("step")[-1]["num_microbatches"] == 2
    assert [record["class_name"] for record in followed.written("optimizer")] == ["SGD"]


def test_optimizers_are_described_before_the_first_step(followed: Followed, program: Program) -> None:
    program.model()
    (described,) = followed.written("optimizer")
    assert (described["num_parameters"], json.loads(described["options"])) == (6, {"lr": 0.1})


def test_an_optimizer_inside_backward_shows_the_gradient_that_it_frees(followed: Followed, program: Program) -> None:
    # One that does not step keeps the step, and the look at all owners at its end, away.
    waited_for = followed.fake.optimizer_class("Adam")([])
    program.model()
    program.weight.grad = gradient = Tensor(3, 2)

    def step_and_free() -> None:
        program.optimizer.step()
        program.optimizer.zero_grad()

    program.fake.loss(during=step_and_free).backward()
    seen = [(row["address"], row["name"], row["step"]) for row in followed.rows("owners", category="gradient")]
    assert seen == [(gradient.address, "weight", 1)]
    del waited_for


def test_an_optimizer_after_backward_shows_its_gradients_at_the_end_of_the_step_only(
    followed: Followed, program: Program
) -> None:
    waited_for = followed.fake.optimizer_class("Adam")([program.weight])
    program.pass_once()
    program.optimizer.step()
    assert followed.rows("owners", category="gradient") == []
    waited_for.step()
    assert [row["name"] for row in followed.rows("owners", category="gradient")] == ["weight"]


def test_an_optimizer_on_a_thread_of_autograd_is_followed(followed: Followed, program: Program) -> None:
    def step_in_backward() -> None:
        with program.fake.world.in_backward():
            program.optimizer.step()

    program.pass_once(during=lambda: in_thread(step_in_backward))
    assert followed.steps() == [0, 1]
    assert followed.warnings() == []


@pytest.mark.parametrize("call", [{}, {"set_to_none": True}, {"set_to_none": False}])
@pytest.mark.parametrize("owner", ["optimizer", "model"])
def test_only_gradients_that_are_set_to_zero_are_kept(
    followed: Followed, program: Program, owner: str, call: dict[str, bool]
) -> None:
    getattr(program, owner).zero_grad(**call)
    getattr(program, owner).zero_grad(*call.values())
    kept = not call.get("set_to_none", True)
    assert followed.facts() == ({"keeps_gradients": True} if kept else {})


def test_gradients_of_parameters_in_no_optimizer_are_noted_once(followed: Followed, fake: FakeTorch) -> None:
    head, base, frozen = Tensor(2), Tensor(3), Tensor(4)
    model = fake.model_class("Net")(head=head, base=base, frozen=frozen)
    optimizer = fake.optimizer_class("SGD")([head])
    by_hand = Tensor(5)
    other = fake.model_class("ByHand")(weight=by_hand)
    for _ in range(3):
        model()
        other()
        head.grad, base.grad, by_hand.grad = Tensor(2), Tensor(3), Tensor(5)
        optimizer.step()
    assert [record["unstepped_parameters"] for record in followed.written("facts")] == [["base"]]
    late = fake.optimizer_class("SGD")([base])
    model()
    late.step()
    optimizer.step()
    model()
    assert followed.facts()["unstepped_parameters"] == []


def test_a_base_of_its_own_that_nothing_writes_to_is_not_stepped(followed: Followed, fake: FakeTorch) -> None:
    head, base, by_hand = Tensor(2), Tensor(3), Tensor(5)
    base._version = by_hand._version = 1  # type: ignore[attr-defined]
    models = [fake.model_class(name)(weight=one) for name, one in (("Head", head), ("Base", base), ("Hand", by_hand))]
    optimizer = fake.optimizer_class("SGD")([head])
    base.grad = Tensor(3)
    for number in range(3):
        for model in models:
            model()
        base.grad._version = number  # type: ignore[attr-defined]  # It stays, and is added to.
        head.grad, by_hand.grad = Tensor(2), Tensor(5)
        by_hand._version += 1  # type: ignore[attr-defined]
        optimizer.step()
    (names,) = [record["unstepped_parameters"] for record in followed.written("facts")]
    owners = followed.rows("owners", category="parameter")
    assert names == [next(row["name"] for row in owners if row["address"] == base.address)]


def test_a_model_whose_gradients_are_made_anew_may_be_trained_in_a_way_that_does_not_show(
    followed: Followed, fake: FakeTorch
) -> None:
    head, by_hand = Tensor(2), Tensor(5)
    by_hand._version = 1  # type: ignore[attr-defined]  # `parameter.data.sub_(…)` does not count.
    models = [fake.model_class(name)(weight=one) for name, one in (("Head", head), ("Hand", by_hand))]
    optimizer = fake.optimizer_class("SGD")([head])
    for _ in range(3):
        for model in models:
            model()
        head.grad, by_hand.grad = Tensor(2), Tensor(5)
        by_hand.grad._version = 0  # type: ignore[attr-defined]
        optimizer.step()
    assert followed.facts().get("unstepped_parameters", []) == []


def test_a_look_between_two_steps_does_not_hide_that_a_model_is_trained_by_hand(
    followed: Followed, fake: FakeTorch
) -> None:
    head, by_hand = Tensor(2), Tensor(5)
    by_hand._version = 1  # type: ignore[attr-defined]
    model, other = (fake.model_class(name)(weight=one) for name, one in (("Head", head), ("Hand", by_hand)))
    optimizer = fake.optimizer_class("SGD")([head])
    for _ in range(3):
        head.grad, by_hand.grad = Tensor(2), Tensor(5)
        by_hand._version += 1  # type: ignore[attr-defined]
        for _ in range(4):
            other()  # After some forwards in a row what they left behind is looked at.
        model()
        optimizer.step()
    assert [
        record["unstepped_parameters"] for record in followed.written("facts") if "unstepped_parameters" in record
    ] == []


def test_a_scaler_that_skips_ends_a_skipped_step(followed: Followed, program: Program) -> None:
    scaler = followed.fake.Scaler()
    for found_inf in (False, True, False):
        scaler.found_inf = found_inf
        program.pass_once()
        scaler.step(program.optimizer)
    assert [record["skipped"] for record in followed.written("step")] == [False, False, True, False]
    assert followed.facts() == {"uses_grad_scaler": True}


def test_a_scaler_that_is_disabled_is_none(followed: Followed, program: Program) -> None:
    program.pass_once()
    followed.fake.Scaler(enabled=False).step(program.optimizer)
    assert followed.facts() == {}
    assert followed.steps() == [0, 1]


def test_a_step_is_skipped_only_where_a_scaler_skips_all_its_optimizers(followed: Followed, program: Program) -> None:
    second, scaler = followed.fake.optimizer_class("Adam")([Tensor(4)]), followed.fake.Scaler()
    for skipped in ((True, False), (True, True), (False, True)):
        program.pass_once()
        for optimizer, found_inf in zip((program.optimizer, second), skipped, strict=True):
            scaler.found_inf = found_inf
            scaler.step(optimizer)
    assert [record["skipped"] for record in followed.written("step")] == [False, False, True, False]


def test_an_optimizer_that_a_scaler_skips_first_is_known_from_then_on(follow: Follow) -> None:
    fake = FakeTorch()
    program, scaler = Program(fake), fake.Scaler()
    followed = follow(fake)
    program.pass_once()
    scaler.found_inf = True
    scaler.step(program.optimizer)
    program.pass_once()
    program.pass_once()
    assert followed.steps() == [0, 1]
