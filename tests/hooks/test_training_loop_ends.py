"""How the training loop is followed through errors, to the end of the program, and beside other threads."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest

from tests.hooks.conftest import Follow
from tests.hooks.fake_torch import Tensor
from tests.hooks.followed import Followed, Program, expected, in_thread

_TRAINING = ("forward", "backward", "optimizer")


# Errors


def fail() -> None:
    """Fail as a program does."""
    raise KeyError("the program's own")


@pytest.mark.parametrize("where", ["forward", "backward", "data"])
def test_a_loop_that_goes_on_after_an_error_is_followed_on(followed: Followed, program: Program, where: str) -> None:
    program.step()
    broken = followed.fake.model_class("Broken")(fail)
    work = {
        "forward": broken,
        "backward": followed.fake.loss(during=fail).backward,
        "data": followed.fake.DataIterator(fail).__next__,
    }
    with pytest.raises(KeyError):
        work[where]()
    program.step()
    assert followed.steps() == [0, 1, 2]
    assert followed.phases()[-2:] == [
        (phase, 2, row[2]) for phase, row in zip(_TRAINING[1:], followed.phases()[-2:], strict=True)
    ]
    assert not followed.loop._phases.inside


def test_a_program_that_ends_inside_a_step_leaves_that_step_without_an_end(
    followed: Followed, program: Program
) -> None:
    def end_inside() -> None:
        followed.loop.break_off()
        followed.loop.break_off()

    program.step()
    followed.fake.model_class("Net")(end_inside)()
    assert [(record["step"], record["end_ns"] is None) for record in followed.written("step")][1:] == [
        (1, False),
        (2, True),
    ]
    assert [(row["phase"], row["end_ns"]) for row in followed.rows("phases", step=2)] == [("forward", None)]
    assert followed.rows("scopes", step=2, end_ns=None) != []
    assert {row["category"] for row in followed.rows("owners", step=2)} == {"parameter", "optimizer_state"}


def test_the_first_step_of_training_too_is_left_without_an_end(followed: Followed, program: Program) -> None:
    program.pass_once()
    followed.loop.break_off()
    assert [(record["step"], record["end_ns"] is None) for record in followed.written("step")] == [
        (0, False),
        (1, True),
    ]


def test_a_program_that_ends_between_steps_leaves_no_further_step(followed: Followed, program: Program) -> None:
    program.step()
    followed.loop.break_off()
    assert followed.steps() == [0, 1]


def test_a_program_that_ends_before_training_leaves_no_step(followed: Followed, program: Program) -> None:
    with followed.fake.world.no_grad():
        followed.fake.model_class("Net")(followed.loop.break_off)()
    assert followed.steps() == []


def test_a_program_that_ends_inside_its_first_closure_leaves_a_step_without_an_end(
    followed: Followed, program: Program
) -> None:
    with pytest.raises(SystemExit):
        program.optimizer.step(lambda: [program.pass_once(), followed.loop.break_off(), sys.exit()])
    assert followed.steps() == [0, 1]
    assert [record["end_ns"] is None for record in followed.written("step")] == [False, True]


def test_a_program_that_ends_outside_the_window_looks_for_no_owners(follow: Follow) -> None:
    followed = follow(steps="5")
    program = Program(followed.fake)
    program.step()
    followed.loop.break_off()
    assert {row["step"] for row in followed.rows("owners")} == {0}


def test_an_out_of_memory_is_told_with_its_owners(followed: Followed, program: Program) -> None:
    program.model()
    in_thread(followed.loop.before_oom_dump)
    assert followed.rows("owners", step=1) == []
    followed.loop.before_oom_dump()
    assert [row["address"] for row in followed.rows("owners", step=1)] == [program.weight.address]


# Other threads


def test_a_loop_on_another_thread_is_not_followed(followed: Followed) -> None:
    def train() -> None:
        program = Program(followed.fake)
        replica = followed.fake.Replicated(inside=program.model)
        followed.loop.replicas.add(replica, step=0)
        scaler = followed.fake.Scaler()
        for found_inf in (False, True):
            with followed.fake.Range("theirs"):
                replica(Tensor(5))
            followed.fake.DataIterator(lambda: None).__next__()
            followed.fake.loss(saved=[Tensor(9)]).backward()
            scaler.found_inf = found_inf
            scaler.step(program.optimizer)

    in_thread(train)
    tables = ("phases", "owners", "saved", "annotations", "replica_forwards")
    assert {table: followed.rows(table) for table in tables} == {table: [] for table in tables}
    assert followed.steps() == []
    assert followed.warnings() == ["steps-on-other-thread"]
    assert followed.sources.chosen_by == []
    followed.loop.break_off()
    assert followed.rows("phases") == []


def test_the_thread_that_trains_is_followed_where_all_are_recorded(followed: Followed) -> None:
    """As under Ray: one thread imports torch and waits, another trains."""
    followed.sources.sees_all_threads = True

    def train() -> None:
        program = Program(followed.fake)
        for _ in range(2):
            program.step()
        assert followed.loop.is_current_thread

    in_thread(train)
    assert followed.phases() == [*expected(1, 0, *_TRAINING), *expected(2, 0, *_TRAINING)]
    assert followed.warnings() == []
    assert not followed.loop.is_current_thread
    assert followed.loop.may_be_ended
    # The thread has ended: another may go on, as where each epoch has one of its own.
    in_thread(lambda: Program(followed.fake).step())
    assert followed.phases(step=3) == expected(3, 0, *_TRAINING)


def test_while_one_thread_trains_no_other_is_followed(followed: Followed, program: Program) -> None:
    followed.sources.sees_all_threads = True
    program.step()
    in_thread(lambda: Program(followed.fake).step())
    assert followed.phases() == expected(1, 0, *_TRAINING)
    assert followed.warnings() == ["steps-on-other-thread"]
    assert followed.loop.is_current_thread


def test_threads_of_one_forward_are_none_that_trains(followed: Followed, program: Program) -> None:
    """`DataParallel` calls each replica on a thread of its own."""
    followed.sources.sees_all_threads = True
    replica = followed.fake.model_class("Replica")()
    followed.fake.model_class("DataParallel")(lambda _inputs: in_thread(replica), weight=program.weight)(Tensor(5))
    assert followed.loop.is_current_thread
    followed.fake.loss(of=[program.weight]).backward()
    program.optimizer.step()
    assert followed.phases() == expected(1, 0, *_TRAINING)


def test_a_thread_without_gradients_is_none_that_trains(followed: Followed, program: Program) -> None:
    followed.sources.sees_all_threads = True
    served = followed.fake.model_class("Served")()

    def serve() -> None:
        with followed.fake.world.no_grad():
            served()

    in_thread(serve)
    assert followed.loop.is_current_thread
    program.step()
    assert followed.phases() == expected(1, 0, *_TRAINING)


def test_another_thread_ends_nothing_of_the_loop(followed: Followed, program: Program) -> None:
    other = followed.fake.model_class("Other")()
    ended: list[object] = []
    ours = SimpleNamespace(range=followed.fake.Range("ours"))

    def meanwhile() -> None:
        other()
        followed.fake.loss().backward()
        followed.fake.DataIterator(lambda: None).__next__()
        ours.range.__exit__(None, None, None)
        followed.fake.Range("theirs").__enter__()

    with ours.range, followed.fake.world.no_grad():
        followed.fake.model_class("Net")(lambda: [in_thread(meanwhile), ended.extend(followed.phases())])()
        assert followed.rows("annotations") == []
    assert ended == []
    assert [row["name"] for row in followed.rows("annotations")] == ["ours"]
    followed.loop.break_off()
    assert followed.phases() == expected(0, 0, "evaluation")
    program.pass_once(during=lambda: [in_thread(meanwhile), ended.extend(followed.phases(phase="backward"))])
    assert ended == []
    assert followed.phases()[1:] == expected(1, 0, "forward", "backward")
