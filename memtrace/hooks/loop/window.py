"""The window: which steps are kept, the chunk that is being collected, and when chunks are written and dropped.

Each step of the window is drained when it ends into chunks of its own, so that what is written survives any death of
the process and at most the unfinished step is lost. A rolling window drops the chunks of old steps.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from time import time_ns

from memtrace.hooks.parts.as_imported import open_file
from memtrace.hooks.parts.chunk import Chunk, EventBatch
from memtrace.hooks.parts.room import Room
from memtrace.hooks.parts.spool import Spool
from memtrace.hooks.sources.choose import Sources
from memtrace.paused_gc import paused_gc
from memtrace.schema.options import RecordOptions, StepSelection
from memtrace.schema.records import TRIGGER_FILE

# What a long stretch without a drain collects (inference, evaluation, a thousand microbatches in one step) is written
# out before it takes much memory: the CPU source holds every event until it is stopped.
_MAX_MARKS = 200_000
_MAX_CHUNK_NS = 2 * 10**9
# In which no more events are made than memory can hold, and beside which the few ms of a chunk are nothing.
_MIN_CHUNK_NS = 2 * 10**8
_NUM_LAST_CHUNKS = 4
_MUCH_HIGHER = 1.05


class Window:
    """Collects marks into the current chunk and writes it, with the events of its time, at each drain."""

    def __init__(
        self,
        options: RecordOptions,
        spool: Spool,
        sources: Sources,
        *,
        start_ns: int,
        on_lost: Callable[[int], None],
    ) -> None:
        self._max_entries = options.max_entries
        self._num_kept = 0
        self._surplus: list[int] = []
        self._on_lost = on_lost
        self._selection = StepSelection.parse(options.steps)
        self._trigger_path = os.path.join(options.parts_dir, TRIGGER_FILE)
        self._trigger_id: str | None = None
        self._triggered_until = 0
        self._spool = spool
        self._sources = sources
        self._lock = threading.RLock()
        self._room = Room()
        self._room.reserve()
        self._number = 0
        self._rolling: list[tuple[int, int, int]] = []
        self._oldest = 0
        """The oldest step of the rolling window."""
        self._highest_bytes = 0
        self._worst: int | None = None
        """The step with the highest mark so far, where it is not kept for good."""
        self._of_next: list[tuple[int, int]] | None = None
        """Where the step may have ended: number and start of each chunk that was written since."""
        self._opened_for_next = False
        self._taken: EventBatch | None = None
        self._is_due = False
        self.chunk = Chunk(step=0, reason="start", start_ns=start_ns)
        """The chunk that callbacks append their rows to."""
        self.spent_ns = 0
        """Time of our own work since somebody last set it to 0."""
        self.is_open = True
        """Whether the current step is recorded."""
        self.allows_frames = True
        """Whether Python frames may be recorded at all; torch.compile is too heavy in Python for them."""

    def keeps(self, step: int) -> bool:
        """Return whether a step is kept for good: chosen, or asked for by `memtrace trigger`."""
        return self._selection.keeps(step) or step <= self._triggered_until

    def wants_frames(self, wanted: bool) -> None:
        """Switch Python frames on or off. They are recorded in steps that are kept for good only."""
        wanted = wanted and self.allows_frames and self.keeps(self.chunk.step)
        if self.is_open and (self._is_due or self._sources.should_switch(wanted)):
            self.drain("switch", frames=wanted)

    def bound_chunk(self) -> None:
        """Write the chunk early where a step is very long or has made very many marks."""
        is_long = self._sources.holds_events() and time_ns() - self.chunk.start_ns > _MAX_CHUNK_NS
        if self.is_open and (is_long or self.chunk.num_marks > _MAX_MARKS):
            self.drain("ring", frames=self._sources.has_frames_on)

    def bound_events(self) -> None:
        """Write the chunk early, between any two steps of the interpreter, where it may hold very many events."""
        is_long = time_ns() - self.chunk.start_ns > _MIN_CHUNK_NS
        if self.is_open and is_long and self._sources.may_stop_anywhere():
            self.drain("ring")

    def tell_of_many_events(self, function: Callable[[], None] | None) -> None:
        """Have a function called where very many events wait, as far as that is noticed; `None`: no more."""
        self._sources.tell_of_many_events(function)

    def take_events(self) -> None:
        """Take the events so far, ahead of the drain that writes them. On the CPU, none are recorded in between."""
        with self._lock, self._room:
            if self._taken is not None:
                return
            began_ns = time_ns()
            try:
                keep = self._may_keep(self.chunk.step) or self.chunk.step == self._worst
                self._taken = self._sources.drain(self._native_path, keep=keep, final=False)
            except OSError as error:
                self._spool.give_up(error)
            self.worked(began_ns)

    @contextmanager
    def without_frames(self) -> Iterator[None]:
        """Pause around much Python of memtrace's own, where the CPU source would record each call of it."""
        if not self._sources.should_switch(False):
            yield
            return
        self.take_events()
        try:
            yield
        finally:
            self.drain("switch", frames=True)

    def drain(
        self, next_reason: str, *, resume: bool = True, frames: bool = False, next_step: int | None = None
    ) -> None:
        """Write everything since the last drain as one chunk and begin the next, which starts for `next_reason`."""
        with self._lock, self._room:
            began_ns = time_ns()
            chunk = self.chunk
            keep = self._may_keep(chunk.step)
            self._is_due = self._sources.cannot_switch()
            batch, self._taken = self._taken, None
            try:
                if batch is None:
                    batch = self._sources.drain(self._native_path, keep=keep, final=not resume)
                self._write(chunk, batch)
            except OSError as error:
                self._spool.give_up(error)
            step = chunk.step if next_step is None else next_step
            self.chunk = Chunk(step=step, reason=next_reason, start_ns=time_ns())
            if resume:
                self._start_sources(frames=frames)
            self.worked(began_ns)

    def worked(self, since_ns: int) -> None:
        """Note that memtrace itself was at work until now."""
        now_ns = time_ns()
        self.spent_ns += now_ns - since_ns
        self.chunk.own_work.append((since_ns, now_ns))

    def dump_at_oom(self) -> None:
        """Write what there is at an out-of-memory, from inside the allocator's own callback."""
        with self._lock:
            chunk = self.chunk
            self._write(chunk, self._sources.dump_history(self._native_path))
            self.chunk = Chunk(step=chunk.step, reason="oom", start_ns=time_ns())

    def close(self) -> None:
        """Let go of what is held in reserve: nothing is written any more."""
        self._room.let_go()

    def may_end_step(self, step: int) -> int:
        """Begin a chunk for what may be the next step already, open the window if that one wants it; return when."""
        if self.is_open:
            self.drain("switch")
        elif self._wants(step + 1):
            self.chunk = Chunk(step=step, reason="resume", start_ns=time_ns())
            self._start_sources(frames=False)
            self.is_open = self._opened_for_next = True
        self._of_next = []
        return self.chunk.start_ns if self.is_open else time_ns()

    def goes_on(self, step: int) -> None:
        """Go on with a step that may have ended, and did not."""
        written, self._of_next = self._of_next or [], None
        if self._opened_for_next:
            self._opened_for_next = self.is_open = False
            self._forget_events()
            self._sources.pause()
            self._drop(number for number, _ in written)
            self.chunk = Chunk(step=step, reason="resume", start_ns=time_ns())

    def end_step(self, step: int) -> None:
        """Write the step that ended, drop what leaves the rolling window, and open or close it for the next step.

        After `may_end_step`, the next step is that which began then.
        """
        self._oldest = step - self._selection.last + 1
        self._poll_trigger(step)
        following = step + 1
        wanted = self._wants(following)
        if self._of_next is not None:
            self._began_before(following, wanted=wanted)
        elif self.is_open:
            self.drain("step", resume=wanted, next_step=following)
        else:
            self.chunk = Chunk(step=following, reason="resume", start_ns=time_ns())
        # Only now: a process that is killed in between leaves a step too many, and never one too few.
        self._drop_old()
        if wanted and not self.is_open:
            self._start_sources(frames=False)
        elif not wanted:
            self._sources.pause()
        if self.keeps(step) and wanted and not self.keeps(following):
            self._sources.shrink_ring(self._selection.last)
        self.is_open = wanted

    def note_mark(self, step: int, mark_bytes: int | None) -> None:
        """Keep, beside the last steps, the highest of those that are not kept for good.

        What is written already costs nothing to keep. An accelerator's history has to be dumped for it: of steps that
        outdo each other a little, as under a leak, only those that do by a twentieth are.
        """
        if mark_bytes is None or mark_bytes <= self._highest_bytes * (
            _MUCH_HIGHER if self._sources.dumps_history else 1
        ):
            return
        self._highest_bytes = mark_bytes
        self._worst = None if self.keeps(step) else step

    def _wants(self, step: int) -> bool:
        return self.keeps(step) or self._selection.last > 0

    def _may_keep(self, step: int) -> bool:
        """Return whether a chunk is to be kept for good, as far as is known whose it is."""
        return self.keeps(step) or (self._of_next is not None and self.keeps(step + 1))

    def _began_before(self, step: int, *, wanted: bool) -> None:
        """Let a step have all chunks since the one before may have ended."""
        written, self._of_next, self._opened_for_next = self._of_next or [], None, False
        numbers = {number for number, _ in written}
        self._rolling = [entry for entry in self._rolling if entry[1] not in numbers]
        if not wanted:
            self._forget_events()
            self._drop(numbers)
            self.chunk = Chunk(step=step, reason="resume", start_ns=time_ns())
        elif not self.keeps(step):
            self._rolling += [(step, number, start_ns) for number, start_ns in written]
        self.chunk.step = step

    def _forget_events(self) -> None:
        """Stop recording: what was recorded is of a step that nobody wants."""
        with self._lock, self._room:
            self._taken = None
            self._sources.drain(self._native_path, keep=False, final=False)

    def _drop(self, numbers: Iterable[int]) -> None:
        if not self._spool.broken:
            for number in numbers:
                self._spool.drop_chunk(number)

    def _start_sources(self, *, frames: bool) -> None:
        """Record on, unless nothing can be written any more."""
        if self._spool.broken:
            return
        try:
            with self._room:
                self._sources.start(frames=frames)
        except OSError as error:
            self._spool.give_up(error)

    def _write(self, chunk: Chunk, batch: EventBatch) -> None:
        if not (chunk.num_rows or batch.columns or batch.is_native):
            return
        rolling_ns = [start_ns for step, _, start_ns in self._rolling if step >= self._oldest]
        keep_from_ns = min(rolling_ns) if batch.is_native and rolling_ns else None
        number = self._number
        with paused_gc():
            lines = chunk.records(number, time_ns(), batch, keep_from_ns=keep_from_ns)
            # A number that is missing among the parts is a chunk that could not be written.
            self._number += 1
            is_written = self._spool.write_chunk(number, lines)
        if not is_written:
            return
        if self._of_next is not None:
            self._of_next.append((number, chunk.start_ns))
        if not self._may_keep(chunk.step):
            self._rolling.append((chunk.step, number, chunk.start_ns))
        else:
            self._bound_kept(chunk.step, number, batch)

    def _bound_kept(self, step: int, number: int, batch: EventBatch) -> None:
        """Keep no more events than `--max-entries` for good; beyond that, of a step that goes on and on, the last."""
        self._num_kept += len(batch.columns.get("time_ns", ()))
        if self._num_kept <= self._max_entries:
            return
        self._surplus.append(number)
        if len(self._surplus) > _NUM_LAST_CHUNKS:
            self._spool.drop_chunk(self._surplus.pop(0))
            self._on_lost(step)

    def _drop_old(self) -> None:
        """Drop all but the last steps that have ended. Once a write has failed they are the last there will be."""
        if self._spool.broken:
            return
        old = [number for step, number, _ in self._rolling if step < self._oldest and step != self._worst]
        if old:
            # That the new step has ended must be known before an old one goes.
            self._spool.flush()
        for number in old:
            self._spool.drop_chunk(number)
        self._rolling = [entry for entry in self._rolling if entry[0] >= self._oldest or entry[0] == self._worst]

    def _native_path(self, suffix: str) -> str:
        return self._spool.chunk_path(self._number, suffix)

    def _poll_trigger(self, step: int) -> None:
        try:
            with open_file(self._trigger_path, encoding="utf-8") as file:
                request = json.load(file)
        except (OSError, ValueError):
            return
        if isinstance(request, dict) and request.get("id") != self._trigger_id:
            self._trigger_id = request.get("id")
            # A second request never cuts the first one short.
            self._triggered_until = max(self._triggered_until, step + int(request.get("steps", 1)))
