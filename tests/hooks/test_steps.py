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


def test_explicit_marks_are_the_only_ends() -> None:
    loop = Loop(1)
    loop.tracker.explicit = True
    loop.step(1)
    loop.step(1)
    assert loop.ends == []
    loop.tracker.mark(7)
    assert loop.ends == [7]
