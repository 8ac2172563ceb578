"""What is evaluation and what is training, by what is measured: modes, gradients, and what comes next."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.hooks.fake_torch import FakeTorch, Tensor
from tests.hooks.followed import Followed, Program
from tests.hooks.read_back import loop_of, read_back

_STEP = ["forward", "backward", "optimizer"]


def names(read: dict[str, Any]) -> dict[int, list[str]]:
    """Return the phases of each step."""
    return {step: [name for name, _ in phases] for step, phases in loop_of(read).items()}


def frozen(fake: FakeTorch, *, training: bool) -> Any:
    """Return a model that no optimizer steps."""
    model = fake.model_class("Teacher")(weight=Tensor(2))
    model.training = training
    return model


def evaluate(program: Program, num_batches: int, *, with_gradients: bool = False, criterion: Any = None) -> None:
    """Evaluate a model in eval mode."""
    program.model.training = False
    for _ in range(num_batches):
        if with_gradients:
            program.model(Tensor(9))
            _ = criterion and criterion(Tensor(1))
        else:
            with program.fake.world.no_grad():
                program.model(Tensor(9))
                _ = criterion and criterion(Tensor(1))
    program.model.training = True


@pytest.mark.parametrize("with_gradients", [False, True])
@pytest.mark.parametrize("has_loss", [False, True])
def test_a_model_in_eval_mode_is_evaluated_and_its_loss_with_it(
    followed: Followed, program: Program, tmp_path: Path, with_gradients: bool, has_loss: bool
) -> None:
    criterion = followed.fake.model_class("NLLLoss")() if has_loss else None
    evaluate(program, 1, with_gradients=with_gradients, criterion=criterion)
    program.step()
    evaluate(program, 2, with_gradients=with_gradients, criterion=criterion)
    program.step()
    read = read_back(followed, tmp_path / "read")
    counted = {step: [name for name in found if name != "evaluation"] for step, found in names(read).items()}
    assert counted == {0: [], 1: _STEP, 2: _STEP}
    evaluations = [row for row in read["phases"] if row["phase"] == "evaluation"]
    steps = [row["step"] for row in evaluations]
    assert (set(steps), steps.count(0)) == ({0, 2}, 2 if has_loss and not with_gradients else 1)
    assert all(row["end_ns"] is not None and row["end_ns"] >= row["start_ns"] for row in evaluations)
    assert {row["detail"] for row in evaluations} == {"with a graph" if with_gradients else None}
    assert [row["num_microbatches"] for row in read["steps"]] == [0, 1, 1]


def test_a_model_that_is_trained_in_eval_mode_is_trained(followed: Followed, program: Program, tmp_path: Path) -> None:
    program.model.training = False
    for _ in range(2):
        program.step(num_microbatches=2)
    read = read_back(followed, tmp_path / "read")
    twice = [(name, number) for number in range(2) for name in ("forward", "backward")]
    assert loop_of(read) == {1: [*twice, ("optimizer", 1)], 2: [*twice, ("optimizer", 1)]}
    assert [row["num_microbatches"] for row in read["steps"]] == [0, 2, 2]
    first = next(row for row in read["phases"] if row["step"] == 1)
    assert read["steps"][1]["start_ns"] <= first["start_ns"]
    assert {row["step"] for row in read["scopes"]} == {1, 2}


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("comes_first", [False, True])
def test_a_teacher_without_gradients_is_of_the_training_step(
    followed: Followed, program: Program, tmp_path: Path, training: bool, comes_first: bool
) -> None:
    teacher = frozen(followed.fake, training=training)
    for _ in range(3):
        if not comes_first:
            program.model(Tensor(5))
        with followed.fake.world.no_grad():
            teacher(Tensor(5))
        if comes_first:
            program.model(Tensor(5))
        program.fake.loss().backward()
        program.optimizer.step()
    read = read_back(followed, tmp_path / "read")
    # Before the first training forward nobody knows yet what will be a habit.
    first = ["evaluation"] if comes_first else []
    found = names(read)
    assert (found.pop(0, []), found) == (first, {1: _STEP, 2: _STEP, 3: _STEP})


def test_a_teacher_in_the_loop_and_an_evaluation_between_are_told_apart(
    followed: Followed, program: Program, tmp_path: Path
) -> None:
    teacher = frozen(followed.fake, training=False)
    data = followed.fake.DataIterator(lambda: None)
    for step in range(4):
        next(data)
        with followed.fake.world.no_grad():
            teacher(Tensor(5))
        program.step()
        if step == 1:
            for _ in range(2):
                next(data)
                evaluate(program, 1)
    found = names(read_back(followed, tmp_path / "read"))
    found.pop(0)
    loaded = ["data", "evaluation"] * 2
    assert found == {1: _STEP, 2: ["data", *_STEP], 3: [*loaded, "data", *_STEP], 4: ["data", *_STEP]}


def test_a_teacher_that_is_itself_evaluated_is_told_by_its_mode(
    followed: Followed, program: Program, tmp_path: Path
) -> None:
    teacher = frozen(followed.fake, training=True)
    for step in range(4):
        program.model(Tensor(5))
        with followed.fake.world.no_grad():
            teacher(Tensor(5))
        program.fake.loss().backward()
        program.optimizer.step()
        if step == 1:
            teacher.training = False
            with followed.fake.world.no_grad():
                teacher(Tensor(50))
            teacher.training = True
    found = names(read_back(followed, tmp_path / "read"))
    assert found == {1: _STEP, 2: _STEP, 3: ["evaluation", *_STEP], 4: _STEP}


def test_rollouts_between_updates_are_phases_of_their_own(followed: Followed, program: Program, tmp_path: Path) -> None:
    for _ in range(2):
        for _ in range(3):
            with followed.fake.world.no_grad():
                program.model(Tensor(1))
        for _ in range(4):
            program.step()
    found = names(read_back(followed, tmp_path / "read"))
    assert found == {step: ["evaluation"] * 3 * (step == 5) + _STEP for step in range(1, 9)} | {0: ["evaluation"] * 3}


def test_evaluation_lasts_until_data_is_asked_for(followed: Followed, program: Program) -> None:
    data = followed.fake.DataIterator(lambda: None)
    program.step()
    evaluate(program, 1)
    next(data)
    (evaluation,), (loaded,) = (followed.rows("phases", phase=name) for name in ("evaluation", "data"))
    assert evaluation["end_ns"] == loaded["start_ns"]


def test_what_a_graph_keeps_in_evaluation_is_walked_when_its_module_ends(followed: Followed, program: Program) -> None:
    kept = Tensor(7)
    program.step()
    program.model.forward = lambda _batch: followed.fake.loss(saved=[kept])
    evaluate(program, 1, with_gradients=True)
    assert [row["address"] for row in followed.rows("saved")] == [kept.address]
    evaluate(program, 1)
    assert len(followed.rows("saved")) == 1


def test_the_program_that_ends_in_an_evaluation_leaves_it_open(followed: Followed, program: Program) -> None:
    program.step()
    program.model.training = False
    program.model.forward = lambda _batch: followed.loop.break_off()
    with followed.fake.world.no_grad():
        program.model(Tensor(5))
    (evaluation,) = followed.rows("phases", phase="evaluation")
    assert (evaluation["step"], evaluation["end_ns"]) == (2, None)
    assert followed.steps() == [0, 1]
