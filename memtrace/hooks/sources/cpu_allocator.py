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


class WatchedCpuSource:
    """Records CPU allocations of all threads, with the stacks of the thread that starts it."""

    name = SOURCE
    is_profiler = False
    """Whether it is torch's profiler, of which there can be one on a thread."""
    can_switch = True
    """It may be started and stopped anywhere, by any thread."""
    result: Any = None
    """A profile to be saved natively: there is none."""

    def __init__(self, torch: Any, library: str, *, stacks: str) -> None:
        """Watch from now on, without recording.

        Raises:
            Unwatched: it cannot be watched here, or not with such stacks.
        """
        own_folder = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
        self._watch = AllocatorWatch(torch, library, own_folder=own_folder)
        self.has_frames = stacks != "none"
        """Whether Python frames are asked for."""
        if self.has_frames:
            self._watch.check_calls()
        self._watch.install(torch)
        self.running = False
        """Whether events are being recorded."""
        self.frames = False
        """Whether it was last started with Python frames."""
        self._thread: int | None = None
        """The thread whose calls are followed."""

    @property
    def observes_calls(self) -> bool:
        """Whether calls are followed, so that who stops it must know whether they are to be followed again."""
        return self.frames

    def start(self, *, frames: bool) -> None:
        """Record from now on, with Python frames of this thread or without; nothing happens if it runs already."""
        if self.running:
            return
        self._leave_calls()
        # Python has one profile hook a thread; a profiler of the user's keeps its own.
        self.frames = frames and self.has_frames and self._thread is None and sys.getprofile() is None
        self.running = True
        self._watch.record(True)
        if self.frames:
            self._thread = threading.get_ident()
            self._watch.follow_calls(self)

    def stop(self) -> EventBatch:
        """Stop and return what was recorded. Nothing is recorded until the next `start`."""
        batch = EventBatch(SOURCE)
        if self.running:
            self.running = False
            self._watch.record(False)
            self._fill(batch, has_true_stacks=self._leave_calls())
        return batch

    def end(self) -> None:
        """Record no more, and leave torch as it was."""
        self.running = False
        self._watch.record(False)
        self._leave_calls()
        self._watch.uninstall()

    def levels(self) -> tuple[int, int]:
        """Return how many bytes are handed out now, and the most since this was last asked."""
        return self._watch.levels()

    def _leave_calls(self) -> bool:
        """Follow calls no longer; return whether they were followed, if at all, up to here.

        Another thread's calls are that thread's to leave, unless it has ended.
        """
        if self._thread is None or (self._thread != threading.get_ident() and self._thread in sys._current_frames()):
            return True
        hook: object = sys.getprofile()
        is_ours = hook is self
        has_ended = self._thread != threading.get_ident()
        self._thread = None
        self._watch.leave_calls(is_ours=is_ours)
        return is_ours or has_ended

    def _fill(self, batch: EventBatch, *, has_true_stacks: bool) -> None:
        alloc, free = (batch.strings.id_of(name) for name in ("alloc", "free_completed"))
        taken = self._watch.take(batch.stacks, alloc=alloc, free=free, has_stacks=has_true_stacks)
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
