"""Allocation events of the CPU allocator, address by address, on all threads, from a watch on the allocator itself.

Against torch's profiler (`cpu_profiler.py`), which stands in where this cannot be had: an event costs a twentieth,
other threads are seen, it may begin and end anywhere, and a profiler of the program's own runs beside it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from memtrace.hooks.native.allocator_watch import AllocatorWatch
from memtrace.hooks.parts.chunk import EventBatch
from memtrace.hooks.sources.event_tree import DEVICE
from memtrace.schema.names import CpuEvents

SOURCE = CpuEvents.ALLOCATOR.value
_MAX_EVENTS = 1 << 23
"""Some 300 MB, and many seconds in which Python executes no instruction."""
_MANY_EVENTS = 1 << 17
"""Of so many more is told."""


class WatchedCpuSource:
    """Records CPU allocations of all threads, each with the stack of its thread."""

    name = SOURCE
    can_switch = True
    """It may be started and stopped anywhere, by any thread."""
    observes_calls = has_frames = frames = False
    """Nothing begins that has to end before it is stopped, and stacks need no switching: they cost as events do."""
    result: Any = None
    """A profile to be saved natively: there is none."""

    def __init__(self, torch: Any, library: str, *, stacks: str, max_events: int = _MAX_EVENTS) -> None:
        """Watch from now on, without recording; beyond `max_events` before a stop, events are lost, and said to be.

        Raises:
            Unwatched: it cannot be watched here, or not with such stacks.
        """
        self._watch = AllocatorWatch(torch, library)
        if stacks != "none":
            self._watch.check_frames()
        self._watch.install(torch, max_events=max_events)
        self._watch.with_frames(stacks != "none")
        self.running = False
        """Whether events are being recorded."""

    def start(self, *, frames: bool = False) -> None:
        """Record from now on; nothing happens if it runs already. `frames` is for sources that switch them."""
        if not self.running:
            self.running = True
            self._watch.record(True)

    def stop(self) -> EventBatch:
        """Stop and return what was recorded. Nothing is recorded until the next `start`."""
        batch = EventBatch(SOURCE)
        if self.running:
            self.running = False
            self._watch.record(False)
            self._fill(batch)
        return batch

    def end(self) -> None:
        """Record no more, and leave torch as it was."""
        self.running = False
        self.tell_of_many(None)
        self._watch.record(False)
        self._watch.uninstall()

    def tell_of_many(self, function: Callable[[], None] | None) -> None:
        """Have a function called in the main thread each time that there are very many more events; `None`: no more."""
        self._watch.tell_of_many(function, every=_MANY_EVENTS)

    def levels(self) -> tuple[int, int]:
        """Return how many bytes are handed out now, and the most since this was last asked."""
        return self._watch.levels()

    def _fill(self, batch: EventBatch) -> None:
        alloc, free = (batch.strings.id_of(name) for name in ("alloc", "free_completed"))
        taken = self._watch.take(batch.stacks, alloc=alloc, free=free)
        batch.num_lost = taken.num_lost
        if not len(taken.time_ns):
            return
        batch.columns = {
            "time_ns": taken.time_ns,
            "action": taken.action,
            "device": batch.strings.id_of(DEVICE),
            "address": taken.address,
            "size_bytes": taken.size_bytes,
            "stream": 0,
            "stack": taken.stack,
            "total_bytes": taken.total_bytes,
            "device_free_bytes": None,
        }
        batch.initial_bytes = taken.initial_bytes
        living = self._watch.living()
        batch.living = {
            "window": 0,
            "device": batch.columns["device"],
            "address": living.address,
            "size_bytes": living.size_bytes,
            "stack": None,
        }
