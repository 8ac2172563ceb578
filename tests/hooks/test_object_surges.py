"""A surge of objects is noticed from the collector's callback, which is gone when it is no longer wanted."""

from __future__ import annotations

import gc
from time import sleep

import pytest

from memtrace.hooks.torch_side import object_surges
from memtrace.hooks.torch_side.object_surges import ObjectSurges


def collect(times: int) -> None:
    """Let the collector run."""
    for _ in range(times):
        gc.collect(0)


def collect_and_go_on(times: int) -> None:
    """Let the collector run, and then something else for a while."""
    collect(times)
    for _ in range(3000):
        sleep(0.01)


def test_many_collections_are_told_of_once() -> None:
    told: list[int] = []
    surges = ObjectSurges(lambda: told.append(1))
    surges.attach()
    try:
        collect(object_surges._NUM_COLLECTIONS - 1)
        assert told == []
        collect(1)
        assert told == [1]
        collect(2 * object_surges._NUM_COLLECTIONS)
        assert told == [1, 1, 1]
    finally:
        surges.detach()


def test_nothing_is_left_behind() -> None:
    before = list(gc.callbacks)
    surges = ObjectSurges(lambda: None)
    surges.detach()
    surges.attach()
    assert len(gc.callbacks) == len(before) + 1
    surges.detach()
    assert gc.callbacks == before


@pytest.mark.parametrize("error", [KeyboardInterrupt(), ValueError("of the program", 3)])
def test_what_a_handler_of_the_program_raises_meanwhile_comes_up_in_it(error: BaseException) -> None:
    def interrupted() -> None:
        raise error

    surges = ObjectSurges(interrupted)
    surges.attach()
    try:
        with pytest.raises(type(error)) as caught:
            collect_and_go_on(object_surges._NUM_COLLECTIONS)
    finally:
        surges.detach()
    assert caught.value is error
