"""What each callback of torch means for phases, steps and microbatches, told by a fake torch in milliseconds."""

from __future__ import annotations

import gc
from typing import Any

import pytest

from tests.hooks.fake_torch import Tensor
from tests.hooks.followed import Followed, Program, expected

_TRAINING = ("forward", "backward", "optimizer")


# Steps and microbatches


def test_a_step_is_a_forward_a_backward_and_an_optimizer_step(followed: Followed, program: Program) -> None:
    for _ in range(2):
        program.step()
    assert followed.phases() == expected(1, 0, *_TRAINING) + expected(2, 0, *_TRAINING)
    assert followed.steps() == [0, 1, 2]
    assert followed.loop.step == 3


def test_a_step_lasts_from_the_end_of_the_one_before_to_the_end_of_its_optimizer(
    followed: Followed, program: Program
) -> None:
    for _ in range(2):
        program.step()
    before, first, second = followed.written("step")
    ended = [row["end_ns"] for row in followed.rows("phases", phase="optimizer")]
    assert before["start_ns"] == followed.start_ns
    assert (first["start_ns"], first["end_ns"]) == (before["end_ns"], ended[0])
    assert (second["start_ns"], second["end_ns"]) == (ended[0], ended[1])
    assert [record["skipped"] for record in (before, first, second)] == [False] * 3


def test_forwards_and_backwards_before_an_optimizer_step_are_microbatches_of_one_step(
    followed: Followed, program: Program
) -> None:
    program.step(num_microbatches=3)
    passes = [row for number in range(3) for row in expected(1, number, "forward", "backward")]
    assert followed.phases() == [*passes, *expected(1, 2, "optimizer")]
    assert [record["num_microbatches"] for record in followed.written("step")] == [0, 3]


def test_a_forward_lasts_until_the_backward_begins(followed: Followed, program: Program) -> None:
    program.step()
    forward, backward = followed.rows("phases")[:2]
    assert forward["end_ns"] == backward["start_ns"]


def test_forwards_without_gradients_are_evaluation_and_count_for_nothing(followed: Followed, program: Program) -> None:
    with followed.fake.world.no_grad():
        program.model(Tensor(5))
    assert followed.steps() == []
    program.step()
    program.step()
    for _ in range(2):
        program.pass_once()
        with followed.fake.world.no_grad():
            program.model(Tensor(5))
    program.optimizer.step()
    assert [record["num_microbatches"] for record in followed.written("step")] == [0, 1, 1, 2]
    evaluations = followed.rows("phases", phase="evaluation")
    assert [row["step"] for row in evaluations] == [0, 3, 3]
    assert all(row["end_ns"] is not None for row in evaluations)


def test_what_runs_without_gradients_between_forward_and_backward_is_of_the_forward(
    followed: Followed, program: Program
) -> None:
    program.model()
    with followed.fake.world.no_grad():
        program.model()
    program.model()
    program.fake.loss().backward()
    assert followed.phases() == expected(1, 0, "forward", "backward")
    assert followed.sources.chosen_by == ["Net"] * 2


def test_a_backward_before_any_forward_begins_training(followed: Followed, program: Program) -> None:
    program.fake.loss(of=[program.weight]).backward()
    assert followed.steps() == [0]
    assert followed.phases() == expected(1, 0, "backward")


def test_an_optimizer_step_before_any_forward_begins_training(followed: Followed, program: Program) -> None:
    program.optimizer.step()
    before, first = followed.written("step")
    (optimizer,) = followed.rows("phases")
    assert before["start_ns"] == followed.start_ns < before["end_ns"] == first["start_ns"] <= optimizer["start_ns"]


@pytest.mark.parametrize("differentiate", ["backward", "grad"])
def test_a_call_of_autograd_is_a_backward(followed: Followed, program: Program, differentiate: str) -> None:
    getattr(followed.fake.autograd, differentiate)(program.fake.loss())
    assert followed.phases() == expected(1, 0, "backward")


def test_a_backward_inside_a_backward_is_of_the_same_microbatch(followed: Followed, program: Program) -> None:
    inner = program.fake.loss(saved=[Tensor(7)])
    program.pass_once(saved=[Tensor(9)], during=inner.backward)
    assert followed.phases() == expected(1, 0, "forward", "backward", "backward")
    # What the inner graph keeps was made during backward: it is not what forward kept.
    assert [row["shape"] for row in followed.rows("saved")] == ["9"]


def test_without_an_optimizer_the_forward_after_a_backward_ends_a_step(followed: Followed) -> None:
    program = Program(followed.fake, optimized=False)
    program.model()
    for _ in range(3):
        program.step()
    assert followed.steps() == [0, 1, 2]


def test_a_second_backward_of_one_forward_ends_no_step(followed: Followed) -> None:
    program = Program(followed.fake, optimized=False)
    program.pass_once()
    program.fake.loss().backward()
    assert followed.steps() == [0]


def test_when_the_last_optimizer_is_gone_forwards_end_steps(followed: Followed, program: Program) -> None:
    program.step()
    program.optimizer = None
    gc.collect()
    for _ in range(2):
        program.step()
    assert followed.steps() == [0, 1, 2]


def test_a_forward_inside_the_loading_of_data_ends_no_step(followed: Followed) -> None:
    program = Program(followed.fake, optimized=False)
    program.step()
    next(SimpleIterator(followed.fake.DataIterator(program.model)))
    assert followed.steps() == [0]
    assert followed.phases(phase="data") == expected(1, 0, "data")


class SimpleIterator:
    """Makes an iterator of what has only `__next__`."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner

    def __next__(self) -> object:
        return self._inner.__next__()


def test_a_closure_runs_forward_and_backward_inside_its_optimizer_step(followed: Followed, program: Program) -> None:
    for _ in range(2):
        program.optimizer.step(program.pass_once)
    nested = ("forward", "backward", "optimizer")
    assert followed.phases() == expected(1, 0, *nested) + expected(2, 0, *nested)
    assert followed.steps() == [0, 1, 2]


def test_marks_of_the_program_end_steps(followed: Followed, program: Program) -> None:
    followed.loop.steps.explicit = True
    program.step()
    program.step()
    assert followed.steps() == [0]
    followed.loop.steps.mark(followed.start_ns + 1)
    assert [record["end_ns"] for record in followed.written("step")][1:] == [followed.start_ns + 1]


# Checkpointing


def test_a_module_that_runs_again_in_backward_is_recomputed(followed: Followed) -> None:
    fake = followed.fake
    inside = fake.model_class("Inside")()
    block = fake.model_class("Block")(lambda: inside(), inside=inside)
    model = fake.model_class("Net")(lambda: block(), block=block)
    optimizer = fake.optimizer_class("SGD")([])
    for _ in range(2):
        model()
        fake.loss(during=block).backward()
    optimizer.step()
    both = [row for number in range(2) for row in expected(1, number, "forward", "recompute", "backward")]
    assert followed.phases() == [*both, *expected(1, 1, "optimizer")]
    again = [row["module"] for row in followed.rows("scopes", recompute=True)]
    assert again == ["block.inside", "block"] * 2
    assert [row["module"] for row in followed.rows("scopes", recompute=False)] == ["block.inside", "block", "Net"] * 2
    recomputed, scope = followed.rows("phases", phase="recompute")[0], followed.rows("scopes", recompute=True)[1]
    assert (recomputed["start_ns"], recomputed["end_ns"]) == (scope["start_ns"], scope["end_ns"])
