"""A moment to write in a long stretch without any call of torch that has a hook: Python's collector tells of it.

The profiler holds every event until it is stopped. A loop that makes tensors and calls no module would fill the memory
with them; but tensors are objects, and after so many the collector runs, from whose callback a chunk can be written.
The watch on the CPU's allocator counts its events itself, and tells of many (`AllocatorWatch.tell_of_many`).
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any

from memtrace.hooks.failure.meant_for_program import raise_afterwards

_NUM_COLLECTIONS = 50
"""Each comes after some 700 more objects (`gc.get_threshold`)."""


class ObjectSurges:
    """Counts collections, and says when there were many."""

    def __init__(self, on_many: Callable[[], None]) -> None:
        """Prepare; `on_many` must be guarded already, and may be called between any two steps of the interpreter."""
        self._on_many = on_many
        self._num_collections = 0

    def attach(self) -> None:
        """Hear of each collection."""
        gc.callbacks.append(self.collected)

    def detach(self) -> None:
        """Hear of none; nothing happens where it was not attached."""
        if self.collected in gc.callbacks:
            gc.callbacks.remove(self.collected)

    def collected(self, phase: str, _info: dict[str, Any]) -> None:
        """Count a collection, as Python tells of its beginning and its end."""
        if phase == "stop":
            self._num_collections += 1
            if self._num_collections >= _NUM_COLLECTIONS:
                self._num_collections = 0
                try:
                    self._on_many()
                except BaseException as error:
                    # Of a handler of the program's, as of Ctrl-C.
                    raise_afterwards(error)
