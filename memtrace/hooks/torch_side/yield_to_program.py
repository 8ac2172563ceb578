"""Giving way to the program's own profiler, memory history and compiler: theirs complete, our gap recorded."""

from __future__ import annotations

from typing import Any

from memtrace.hooks.loop.main_part import Writer
from memtrace.hooks.loop.window import Window
from memtrace.hooks.sources.choose import Sources


class Yielding:
    """Suspends our sources while the program uses the same machinery, and notes what cannot be seen."""

    def __init__(self, window: Window, sources: Sources, writer: Writer) -> None:
        self._window = window
        self._sources = sources
        self._writer = writer

    def before_profiler(self, *_args: Any, **_kwargs: Any) -> None:
        """The program starts a profiler: two at once would silently empty the outer one."""
        if self._sources.profiler_suspended or self._sources.is_predicted:
            # What a prediction records is not the profiler's.
            return
        if self._sources.uses_profiler():
            self._window.drain("profiler", resume=False)
            self._writer.note("user-profiler", "the program ran torch's profiler: CPU events of that time are missing")
        self._sources.profiler_suspended = True

    def before_preparation(self, *_args: Any, **_kwargs: Any) -> None:
        """The program prepares a profiler."""
        self.before_profiler()
        self._sources.other_profiler_begins()

    def after_preparation(self, *_args: Any, **_kwargs: Any) -> None:
        """It has prepared it."""
        self._sources.other_profiler_began()

    def after_profiler(self, *_args: Any, **_kwargs: Any) -> None:
        """The program's profiler has stopped."""
        if self._sources.profiler_suspended:
            self._sources.profiler_suspended = False
            if self._window.is_open and not self._sources.recording:
                self._window.drain("profiler")

    def history_module(self) -> Any:
        """Return the module in which the program may call the memory history itself, if there is one."""
        return self._sources.history_module()

    def before_history(self, *_args: Any, **_kwargs: Any) -> None:
        """The program is about to change torch's memory history, which would drop what ours has recorded."""
        if not self._sources.history_suspended:
            self._window.drain("resume", resume=False)
            self._writer.note(
                "user-history", "the program used torch's memory history: events of that time are missing"
            )
            self._sources.suspend_history()

    def after_history(self, enabled: Any = "all", *_args: Any, **_kwargs: Any) -> None:
        """The program changed torch's memory history: once it is off, ours goes on."""
        if enabled is None or enabled is False:
            self._sources.history_suspended = False
            if self._window.is_open:
                self._sources.start()

    def remote_calls_begin(self, *_args: Any, **_kwargs: Any) -> None:
        """The program has joined others that it calls by `torch.distributed.rpc`."""
        self._sources.remote_calls_begin()

    def on_compile(self, *_args: Any, **_kwargs: Any) -> None:
        """The program compiles: too heavy in Python to record frames of, and operators may be open where we stop."""
        if self._sources.leave_operators() and self._window.is_open:
            self._window.drain("switch")
        self._window.wants_frames(False)
        self._window.allows_frames = False
        self._writer.note(
            "torch-compile", "torch.compile: module scopes and frames inside compiled regions are not seen"
        )

    def on_graph_capture(self, *_args: Any, **_kwargs: Any) -> None:
        """The program captures a CUDA graph: its replays make no allocator events."""
        self._writer.note("cuda-graph", "CUDA graphs: replays make no events, only the capture is seen")

    def on_pluggable_allocator(self, *_args: Any, **_kwargs: Any) -> None:
        """The program replaces the allocator: torch's history no longer sees allocations."""
        self._writer.note("pluggable-allocator", "a pluggable allocator is in use: its allocations are not seen")
