"""What several steps make and one moment frees is told where it is most of the peak; queues and small sums are not."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from memtrace.analysis.advice.case import Case
from memtrace.analysis.attribution.attribute import CATEGORIES
from memtrace.analysis.device.device_history import build_history
from memtrace.analysis.faults.kept_for_steps import kept_for_steps
from memtrace.analysis.results.report import Finding
from memtrace.schema.names import Category
from tests.analysis.test_leaks import KIB, Kept, loop

MIB = 1024 * KIB


def epochs(length: int, *, number: int, num_bytes: int = 100 * KIB, last: int | None = None) -> list[Kept]:
    """Return what each step makes and keeps to the end of its epoch, to the end of the run in the last one."""
    num_steps = length * number
    return [
        Kept(num_bytes, None if step > num_steps - length else -step % length, first=step, last=step, stack=0)
        for step in range(1, (num_steps if last is None else last) + 1)
    ]


def found_in(things: Sequence[Kept], *, num_steps: int, recorded: Sequence[int] | None = None) -> Finding | None:
    rank = loop(things, num_steps=num_steps, recorded=recorded)
    return kept_for_steps(Case(build_history(rank, "cpu", owns_marks=False)))


@pytest.mark.parametrize("recorded", [None, [1, 2, 3, 11, 12]], ids=["all", "with a gap"])
def test_what_an_epoch_keeps_is_told_with_the_most_that_was_live(recorded: list[int] | None) -> None:
    own = Kept(150 * KIB, 0, line=2, stack=12)
    found = found_in([*epochs(6, number=2), own], num_steps=12, recorded=recorded)
    assert found is not None
    # In the last step of an epoch there is what the five before it made.
    assert found.saves_bytes == pytest.approx(5 * 100 * KIB, rel=0.25)
    assert found.new_peak_bytes is not None
    assert 0 < found.new_peak_bytes <= 3 * 100 * KIB + 150 * KIB
    assert found.where is not None
    assert (found.where["file"], found.where["line"]) == ("train.py", 1)


@pytest.mark.parametrize(
    "things",
    [
        [Kept(100 * KIB, 5)],
        [Kept(100 * KIB, None)],
        [Kept(100 * KIB, 1)],
        [Kept(100 * KIB, None, last=4)],
        epochs(6, number=2, num_bytes=10 * KIB),
        epochs(2, number=6),
    ],
    ids=["queue", "leak", "double buffer", "cache that fills", "small beside the rest", "two steps"],
)
@pytest.mark.parametrize("recorded", [None, [1, 2, 3, 11, 12]], ids=["all", "with a gap"])
def test_what_is_kept_otherwise_is_not_told(things: list[Kept], recorded: list[int] | None) -> None:
    assert found_in([*things, Kept(400 * KIB, 0, line=2, stack=len(things))], num_steps=12, recorded=recorded) is None


def test_a_workspace_of_a_library_is_no_part_of_what_it_is_most_of() -> None:
    beside = Kept(8 * MIB, None, first=1, last=1, line=3, stack=13)
    rank = loop([*epochs(6, number=2, num_bytes=MIB), Kept(150 * KIB, 0, line=2, stack=12), beside], num_steps=12)
    history = build_history(rank, "cpu", owns_marks=False)
    assert kept_for_steps(Case(history)) is None
    history.attribution.category[history.lifetimes.size_bytes == 8 * MIB] = CATEGORIES.index(Category.WORKSPACE)
    found = kept_for_steps(Case(history))
    assert found is not None
    assert found.saves_bytes < Case(history).peak_bytes / 2


def test_what_was_made_in_a_gap_is_known_by_what_goes_on_behind_it() -> None:
    # Of what step 9 frees, all but its own and that of step 8 was there before it was recorded, of no known place.
    things = [*epochs(9, number=2, last=10), Kept(150 * KIB, 0, line=2, stack=10)]
    found = found_in(things, num_steps=10, recorded=[1, 2, 3, 8, 9, 10])
    assert found is not None
    assert found.evidence["growth_per_step_bytes"] == pytest.approx(100 * KIB, rel=0.1)
    assert found.where is not None
    assert (found.where["file"], found.where["line"]) == ("train.py", 1)


def test_a_place_that_stops_while_others_are_freed_is_not_told() -> None:
    # Nothing is made behind the gap that would be kept on.
    things = [*epochs(9, number=2, last=7), Kept(150 * KIB, 0, line=2, stack=7)]
    assert found_in(things, num_steps=10, recorded=[1, 2, 3, 8, 9, 10]) is None
