"""A surge of objects is noticed from the collector's callback, which is gone when it is no longer wanted."""

from __future__ import annotations

import gc

from memtrace.hooks.torch_side import object_surges
from memtrace.hooks.torch_side.object_surges import ObjectSurges


def collect(times: int) -> None:
    """Let the collector run."""
    for _ in range(times):
        gc.collect(0)


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
