"""Allocation events of the CPU allocator, address by address, on all threads, from a watch on the allocator itself.

Against torch's profiler (`cpu_profiler.py`), which stands in where this cannot be had: an event costs a fiftieth, other
threads are seen, it may begin and end anywhere, and a profiler of the program's own runs beside it.
"""

from __future__ import annotations

import os
import sys
import threading
from typing import Any

from memtrace.hooks.native.allocator_watch import AllocatorWatch
from memtrace.hooks.parts.chunk import EventBatch
from memtrace.hooks.sources.event_tree import DEVICE
from memtrace.schema.names import CpuEvents

SOURCE = CpuEvents.ALLOCATOR.value
_MAX_EVENTS = 1 << 23
"""Some 300 MB, and many seconds in which no hook of ours is called."""


class WatchedCpuSource:
    """Records CPU allocations of all threads, with the stacks of the thread that starts it."""

    name = SOURCE
    is_profiler = False
    """Whether it is torch's profiler, of which there can be one on a thread."""
    can_switch = True
    """It may be started and stopped anywhere, by any thread."""
    result: Any = None
    """A profile to be saved natively: there is none."""

    def __init__(self, torch: Any, library: str, *, stacks: str, max_events: int = _MAX_EVENTS) -> None:
        """Watch from now on, without recording; beyond `max_events` before a stop, events are lost, and said to be.

        Raises:
            Unwatched: it cannot be watched here, or not with such stacks.
        """
        own_folder = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
        self._watch = AllocatorWatch(torch, library, own_folder=own_folder)
        self.has_frames = stacks != "none"
        """Whether Python frames are asked for."""
        if self.has_frames:
            self._watch.check_calls()
        self._watch.install(torch, max_events=max_events)
        self.running = False
        """Whether events are being recorded."""
        self.frames = False
        """Whether it was last started with Python frames."""
        self._thread: int | None = None
        """The thread whose calls are followed."""

    observes_calls = False
    """Whether a call may have begun that must be seen to end: what is called is found out at each start."""

    def start(self, *, frames: bool) -> None:
        """Record from now on, with Python frames of this thread or without; nothing happens if it runs already."""
        if self.running:
            return
        self._leave_calls()
        self.running = True
        self._watch.record(True)
        # Python has one profile hook a thread; a profiler of the user's keeps its own.
        self.frames = frames and self.has_frames and self._thread is None and self._watch.follow_calls()
        if self.frames:
            self._thread = threading.get_ident()

    def stop(self) -> EventBatch:
        """Stop and return what was recorded. Nothing is recorded until the next `start`."""
        batch = EventBatch(SOURCE)
        if self.running:
            self.running = False
            self._watch.record(False)
            self._leave_calls()
            self._fill(batch)
        return batch

    def end(self) -> None:
        """Record no more, and leave torch as it was."""
        self.running = False
        self._watch.record(False)
        if self.has_frames:
            self._thread = None
            self._watch.leave_calls()
        self._watch.uninstall()

    def levels(self) -> tuple[int, int]:
        """Return how many bytes are handed out now, and the most since this was last asked."""
        return self._watch.levels()

    def _leave_calls(self) -> None:
        """Follow calls no longer. Another thread's calls are that thread's to leave, unless it has ended."""
        is_over = self._thread == threading.get_ident() or not self._watch.follows_calls
        if self._thread is not None and (is_over or self._thread not in sys._current_frames()):
            self._thread = None
            self._watch.leave_calls()

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
