"""Allocation events of the CPU allocator, address by address, from torch's own profiler. No GPU needed.

The profiler is driven through the functions that `torch.profiler` itself calls, with operator events left out: memory
events and Python frames cost a fraction of a full profile. Facts that shape this file (torch 2.13):

- A profiler belongs to the thread that started it, which alone can stop it, and sees no allocation of other threads.
  (With `profile_all_threads` it sees their operators, and no allocation at all.) The allocator's running total is in
  every event, so what was not seen is known in bytes.
- Where one is prepared on another thread, the library gives up the first, says so, and the stop of the first ends the
  process in a segmentation fault. It does not where the library was prepared once more before it.
- A block is known to the profiler only if it was allocated under one, and a free of an unknown block is dropped with
  a line on stderr. `NativeLog.track_all_blocks` makes the allocator keep its table at all times instead.
- An operator or named range that is open when a profiler stops is written to when it ends, if another profiler runs
  by then, and that memory has been freed. So nothing is observed that may be open where we stop: no named ranges
  (`record_function`, see `annotations.py`), no operators in a program that compiles, and nothing at all is stopped
  inside a backward pass.
- A profiler that is alive when the interpreter exits, or in a forked child, ends in a segmentation fault. So it is
  stopped before every fork and at exit.
- With frames, every Python call and return becomes an event that is held in memory until the stop. Code that is heavy
  in Python (imports, tokenising, compilation) would fill the memory, so whoever starts it says whether frames are
  wanted: inside the forward, backward and optimizer of chosen steps, nowhere else.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import lru_cache
from types import FrameType
from typing import Any

from memtrace.hooks.parts.as_imported import system
from memtrace.hooks.parts.chunk import EventBatch
from memtrace.hooks.sources.event_tree import TreeWalk
from memtrace.hooks.sources.kineto_log import KinetoLog
from memtrace.hooks.sources.muffled import Muffled
from memtrace.hooks.sources.native_log import NativeLog
from memtrace.hooks.sources.native_threads import hearing_no_signals
from memtrace.paused_gc import paused_gc
from memtrace.schema.names import CpuEvents

SOURCE = CpuEvents.PROFILER.value
_ABSENT_ACTIVITIES = ("MTIA", "HPU")
"""Kinds of accelerators that torch's profiler knows by name, and that its own builds cannot record."""


class CpuSource:
    """Records CPU allocations of the thread that starts it."""

    name = SOURCE

    def __init__(self, torch: Any, *, stacks: str, profile: bool, warn: Callable[[str, str], None]) -> None:
        """Prepare, without starting. Raises AttributeError where this torch has no such profiler."""
        self._traced = ((torch.nn.Module, "__call__"), (torch.optim.Optimizer, "_optimizer_step_code"))
        self._warn = warn
        self._engine = torch._C._autograd
        self._graph_task = torch._C._current_graph_task_id
        self._is_enabled = getattr(self._engine, "_profiler_enabled", lambda: False)
        self._profiler = torch._C._profiler
        self._num_modes = getattr(torch._C, "_len_torch_function_stack", lambda: 0)
        self._profile = profile
        self._with_operators = stacks == "all" or profile
        self.has_frames = stacks != "none"
        """Whether Python frames were asked for, and can be recorded as far as is known."""
        self._thread: int | None = None
        self._own_hook: Any = None
        """What Python says of its profile hook while only ours is there."""
        self.frames = False
        """Whether it was last started with Python frames."""
        self.result: Any = None
        """The last profile that was stopped, to be saved natively, when a profile was asked for."""
        self._is_given_up = False
        """Whether the library has given up what runs, for a profiler of the program's on another thread."""
        self._hushed = ExitStack()
        self._kineto_log = KinetoLog(torch)
        self._muffled = Muffled(torch)
        self._log = NativeLog(torch)
        self._prepared = {self._profiler.ProfilerActivity.CPU}
        """What the profiler's library is told to collect."""
        if not profile and self._log.can_be_quiet:
            self._spare_library(torch)
        self._log.track_all_blocks(torch, self._with_profiler)

    @property
    def running(self) -> bool:
        """Whether events are being recorded."""
        return self._thread is not None

    @property
    def can_switch(self) -> bool:
        """Whether it may be started or stopped here: by the thread that started it, and not inside a backward pass.

        Autograd keeps the thread's state of when the pass began, and puts it back at its end, a stopped profiler
        with it.
        """
        return self._thread in (None, threading.get_ident()) and self._graph_task() == -1

    @property
    def observes_calls(self) -> bool:
        """Whether calls or operators are recorded, one of which may have begun and not ended where it is stopped."""
        return self.frames or self._with_operators

    def leave_operators(self) -> bool:
        """Observe no operators from the next start on; return whether it runs with them now.

        The program compiles: around what is compiled stands an operator of torch's, within which autograd or an
        optimizer may run, at whose ends it is stopped.
        """
        runs_with_them, self._with_operators = self.running and self._with_operators, False
        return runs_with_them

    def start(self, *, frames: bool) -> None:
        """Start recording on this thread, with Python frames or without; nothing happens if it runs already.

        Raises OSError where no file can be opened: the profiler reads one, and would complain on stderr.
        """
        if not self.running and self.can_switch:
            system.close(system.open(os.devnull, os.O_RDONLY))
            # The frames come from the interpreter's profile hook; a profiler of the user's keeps its own. And with them
            # torch reads gradients in Python, which a mode of the user's would see.
            is_watched = sys.getprofile() is not None or self._num_modes() > 0
            self.frames = frames and self._may_have_frames() and not is_watched
            with hearing_no_signals(), self._none_left_running():
                self._enable(with_frames=self.frames)
                self._own_hook = sys.getprofile()
                self._thread = threading.get_ident()

    def stop(self) -> EventBatch:
        """Stop and return what was recorded. Nothing is recorded until the next `start`."""
        batch = EventBatch(SOURCE)
        if self.running and self.can_switch:
            self._thread = None
            hook = sys.getprofile()
            with hearing_no_signals(), self._none_left_running(), self._log.quiet(), self._kineto_log.quiet():
                if self._is_given_up:
                    self._is_given_up = False
                    self._kineto_log.prepare(self._engine, self._config(with_frames=False), self._prepared)
                result = self._muffled.call(self._engine._disable_profiler)
            if hook is not self._own_hook:
                _put_back(hook)
            # Objects of the tree are made by the million here, and none is part of a cycle.
            with paused_gc():
                self._walk(result, batch)
            self.result = result if self._profile else None
        return batch

    @contextmanager
    def _none_left_running(self) -> Iterator[None]:
        """Leave no profiler that nobody would stop where a handler of a signal raises in the middle of it.

        Another thread than this one may have heard the signal, so that blocking it here is not enough.
        """
        try:
            yield
        except BaseException:
            self._thread = None
            if self._is_enabled():
                with self._log.quiet(), self._kineto_log.quiet():
                    self._engine._disable_profiler()
            raise

    def _may_have_frames(self) -> bool:
        """Whether frames may be recorded: not once the program has wrapped how torch calls modules or optimizers.

        From the frame of each such call the tracer reads the variable `self` without looking whether it is there, and
        takes it for a module: a wrapper's frame ends the process. So does a file's name that is not UTF-8.
        """
        if self.has_frames and not _all_can_be_named():
            self.has_frames = False
            self._warn(
                "names-not-unicode", "the program lies in a folder whose name is not UTF-8: stacks are not recorded"
            )
        if self.has_frames and not all(_is_function_of_torch(*one) for one in self._traced):
            self.has_frames = False
            self._warn("calls-wrapped", "the program wraps the calls of torch's modules: stacks are not recorded")
        return self.has_frames

    def _spare_library(self, torch: Any) -> None:
        """Let the profiler's library collect what there is none of, if torch's own tree of events is whole without it.

        The library makes an object with texts of every event, for a file that nobody wants: more than half of what
        a stop takes, in time and memory. That it found nothing is what the log says of it.
        """
        kinds = self._profiler.ProfilerActivity
        possible = {one.name for one in self._engine._supported_activities()}
        absent = [kinds.__members__[name] for name in _ABSENT_ACTIVITIES if name in kinds.__members__]
        before = self._prepared
        self._prepared = {next((one for one in absent if one.name not in possible), kinds.CPU)}
        addresses: list[int] = []
        with self._log.quiet():
            # Freed as well while it is seen, or the allocator's total would count it for ever.
            result = self._with_profiler(lambda: addresses.append(torch.empty(1).data_ptr()))
        batch = EventBatch(SOURCE)
        self._walk(result, batch)
        if list(batch.columns.get("address", ())) != 2 * addresses:
            self._prepared = before

    def _walk(self, result: Any, batch: EventBatch) -> None:
        walk = TreeWalk(self._profiler, batch)
        walk.run(result.experimental_event_tree(), with_calls=self.observes_calls)

    def _with_profiler(self, action: Callable[[], None]) -> Any:
        self._enable(with_frames=False)
        action()
        with self._kineto_log.quiet():
            return self._engine._disable_profiler()

    def other_begins(self) -> None:
        """The program is about to prepare a profiler; on another thread, what runs is given up for it, aloud."""
        if self.running and self._thread != threading.get_ident():
            self._is_given_up = True
            self._hushed.enter_context(self._log.quiet())

    def other_began(self) -> None:
        """It is prepared."""
        self._hushed.close()

    def unheard(self, action: Callable[[], None]) -> None:
        """Call a function while a profiler runs on this thread, and let nobody hear what torch warns of."""
        with self._log.quiet():
            if self._is_enabled():
                action()
            else:
                self._with_profiler(action)

    def _config(self, *, with_frames: bool) -> Any:
        profiler = self._profiler
        return profiler.ProfilerConfig(
            profiler.ProfilerState.KINETO,
            False,  # shapes
            True,  # memory
            with_frames,
            False,  # flops
            False,  # modules
            profiler._ExperimentalConfig(),
        )

    def _enable(self, *, with_frames: bool) -> None:
        profiler, config = self._profiler, self._config(with_frames=with_frames)
        scopes = {profiler.RecordScope.BACKWARD_FUNCTION}
        if self._with_operators:
            scopes.add(profiler.RecordScope.FUNCTION)
        activities = {profiler.ProfilerActivity.CPU}
        self._kineto_log.prepare(self._engine, config, self._prepared)
        with self._kineto_log.quiet():
            self._engine._enable_profiler(config, activities, scopes)


def _put_back(hook: Any) -> None:
    """Give Python the profile hook again that the program has set meanwhile: torch takes away whichever is there."""
    if callable(hook):
        sys.setprofile(hook)
    elif hasattr(hook, "enable"):
        # One of cProfile, which is known to Python's C side alone.
        hook.enable()


def _all_can_be_named() -> bool:
    """Whether the files of the calls that run, and the folders that modules come from, have names that are UTF-8."""
    frame: FrameType | None = sys._getframe()
    names = [*sys.path, *sys.argv[:1]]
    while frame is not None:
        names.append(frame.f_code.co_filename)
        frame = frame.f_back
    return all(_is_utf_8(name) for name in names if isinstance(name, str))


@lru_cache(maxsize=4096)
def _is_utf_8(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _is_function_of_torch(owner: Any, name: str) -> bool:
    """Return whether an attribute of a class is a function from the module of the class, with `self` first."""
    found = getattr(owner, name, None)
    code = getattr(found, "__code__", None)
    is_own = getattr(found, "__globals__", None) is vars(sys.modules[owner.__module__])
    return is_own and code is not None and code.co_varnames[:1] == ("self",)
