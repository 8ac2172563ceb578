"""Kernels and operators from torch's profiler, for `--profile` on an accelerator. Saved as torch writes them."""

from __future__ import annotations

import threading
from typing import Any

from memtrace.hooks.sources.kineto_log import KinetoLog


class KernelSource:
    """Runs the profiler without memory events; one profile a chunk."""

    def __init__(self, torch: Any) -> None:
        self._log = KinetoLog(torch)
        self._engine = torch._C._autograd
        self._profiler = torch._C._profiler
        self._graph_task = torch._C._current_graph_task_id
        supported = self._engine._supported_activities()
        self._activities = {activity for activity in supported if activity.name != "MTIA"}
        self._thread: int | None = None

    @property
    def running(self) -> bool:
        """Whether a profile is being taken."""
        return self._thread is not None

    @property
    def can_switch(self) -> bool:
        """Whether it may be stopped here: by the thread that started it, and not inside a backward pass."""
        return self._thread in (None, threading.get_ident()) and self._graph_task() == -1

    def start(self) -> None:
        """Start a profile on this thread; nothing happens if one runs, or inside a backward pass."""
        if self.running or not self.can_switch:
            return
        profiler = self._profiler
        state, experimental = profiler.ProfilerState.KINETO, profiler._ExperimentalConfig()
        config = profiler.ProfilerConfig(state, False, False, False, False, False, experimental)
        # Named ranges may be open where we stop, and an open one is written to after it was freed: see cpu.py.
        scopes = {profiler.RecordScope.FUNCTION, profiler.RecordScope.BACKWARD_FUNCTION}
        self._log.prepare(self._engine, config, self._activities)
        with self._log.quiet():
            self._engine._enable_profiler(config, self._activities, scopes)
        self._thread = threading.get_ident()

    def save(self, path: str) -> None:
        """Stop the profile and write it; it must be started again."""
        result = self.stop()
        if result is not None:
            result.save(path)

    def stop(self) -> Any:
        """Stop the profile and return torch's result, `None` if none ran."""
        if not self.running or not self.can_switch:
            return None
        self._thread = None
        with self._log.quiet():
            return self._engine._disable_profiler()
