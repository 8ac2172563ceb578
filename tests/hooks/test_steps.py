"""Where steps end, for every arrangement of optimizers."""

from __future__ import annotations

import pytest

from memtrace.hooks.loop.steps import StepEnd, StepTracker


class Loop:
    """A tracker under a clock that ticks at each optimizer step, and the steps that ended."""

    def __init__(self, *optimizers: int) -> None:
        self.ended: list[StepEnd] = []
        self.tracker = StepTracker(self.ended.append)
        self.now = 0
        for optimizer in optimizers:
            self.tracker.created(optimizer)

    def step(self, optimizer: int, *, skipped: bool = False) -> None:
        """Step one optimizer, or let a scaler skip it, as the hooks would tell."""
        self.now += 1
        if not skipped:
            self.tracker.before(optimizer)
        self.tracker.after(optimizer, self.now, skipped=skipped)

    @property
    def ends(self) -> list[int | None]:
        """Times at which steps ended."""
        return [end.end_ns for end in self.ended]


def test_one_optimizer_ends_a_step_each_time() -> None:
    loop = Loop(1)
    for _ in range(3):
        loop.step(1)
    assert loop.ends == [1, 2, 3]


def test_all_optimizers_of_the_first_step_are_waited_for() -> None:
    loop = Loop(1, 2)
    for _ in range(2):
        loop.step(1)
        loop.step(2)
    assert loop.ends == [2, 4]


def test_an_optimizer_that_never_steps_delays_only_the_first_step() -> None:
    loop = Loop(1, 2)
    for _ in range(4):
        loop.step(1)
    # The first end is known when the second begins, and lies where it was.
    assert loop.ends == [1, 2, 3, 4][: len(loop.ends)]
    assert len(loop.ends) >= 3


def test_an_optimizer_that_is_freed_is_not_waited_for() -> None:
    loop = Loop(1, 2)
    loop.tracker.gone(2)
    loop.step(1)
    assert loop.ends == [1]


def test_an_optimizer_that_steps_twice_before_the_other_ends_a_step_at_its_first() -> None:
    loop = Loop(1, 2)
    loop.step(1)
    loop.step(1)
    assert loop.ends[0] == 1


@pytest.mark.parametrize(("first", "second", "expected"), [(True, True, True), (True, False, False)])
def test_a_step_is_skipped_only_if_all_its_optimizers_were(first: bool, second: bool, expected: bool) -> None:
    loop = Loop(1, 2)
    loop.step(1, skipped=first)
    loop.step(2, skipped=second)
    assert [end.skipped for end in loop.ended] == [expected]


def test_an_optimizer_that_is_made_in_the_next_fold_begins_a_step() -> None:
    loop, per_fold = Loop(), 3
    for fold in range(4):
        loop.tracker.created(fold)
        for _ in range(per_fold):
            loop.tracker.goes_on()  # a forward
            loop.step(fold)
    loop.tracker.close(has_begun=False)
    assert loop.ends == list(range(1, 4 * per_fold + 1))


def test_an_optimizer_that_is_made_late_in_the_first_iteration_takes_part_in_it() -> None:
    loop = Loop(1, 3)  # The third never steps.
    loop.step(1)
    loop.tracker.created(2)
    loop.tracker.goes_on()
    loop.step(2)
    for _ in range(2):
        loop.step(1)
        loop.tracker.goes_on()
        loop.step(2)
    loop.tracker.close(has_begun=False)
    assert loop.ends == [2, 4, 6]


def test_explicit_marks_are_the_only_ends() -> None:
    loop = Loop(1)
    loop.tracker.explicit = True
    loop.step(1)
    loop.step(1)
    assert loop.ends == []
    loop.tracker.mark(7)
    assert loop.ends == [7]


def test_a_step_that_all_optimizers_take_in_backward_ends_with_the_backward() -> None:
    loop = Loop(1, 2)
    for end in (10, 20):
        for optimizer in (1, 2):
            loop.tracker.before(optimizer)
            loop.tracker.after(optimizer, end - 5, in_backward=True)
        loop.tracker.backward_ended(end)
    assert loop.ends == [10, 20]


def test_a_step_that_some_optimizers_take_in_backward_goes_on_after_it() -> None:
    loop = Loop(1, 2)
    loop.tracker.before(1)
    loop.tracker.after(1, 5, in_backward=True)
    loop.tracker.backward_ended(10)
    assert loop.ends == []
    loop.step(2)
    assert loop.ends == [1]


def test_a_possible_end_is_told_once_where_the_program_goes_on() -> None:
    told: list[str] = []
    tracker = StepTracker(
        lambda end: told.append(f"{end.end_ns}, {'late' if end.is_late else 'now'}"),
        on_possible_end=lambda: told.append("perhaps"),
        on_going_on=lambda: told.append("no"),
    )
    for optimizer in (1, 2):
        tracker.created(optimizer)
    tracker.goes_on()
    tracker.after(1, 5)
    tracker.goes_on()
    tracker.goes_on()
    tracker.before(2)
    tracker.after(2, 6)
    assert told == ["perhaps", "no", "6, now"]
    told.clear()
    tracker.after(1, 7)
    tracker.goes_on()
    tracker.before(1)
    assert told == ["perhaps", "7, late"]
    told.clear()
    # What ended so once is looked at right away.
    tracker.after(1, 8)
    assert told == ["perhaps"]


def test_an_optimizer_that_is_gone_leaves_nothing_behind() -> None:
    loop = Loop(1, 2)
    loop.step(1)
    loop.step(1)
    loop.tracker.gone(2)
    loop.step(1)
    assert loop.ends == [1, 2, 3]


@pytest.mark.parametrize(("has_begun", "expected"), [(False, [1]), (True, [])])
def test_a_program_that_ends_after_some_optimizers_ended_a_step_unless_it_trained_on(
    has_begun: bool, expected: list[int]
) -> None:
    loop = Loop(1, 2)
    loop.step(1)
    loop.tracker.goes_on()
    loop.tracker.close(has_begun=has_begun)
    assert loop.ends == expected
