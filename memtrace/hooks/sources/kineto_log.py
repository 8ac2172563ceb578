"""The log of the profiler's library, kept from speaking of our profiles, and left as it is for the program's own."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from memtrace.hooks.sources.native_threads import hearing_no_signals

_LEVEL = "_ZN9libkineto6Logger14severityLevel_E"
_VARIABLE = "KINETO_LOG_LEVEL"
_NOTHING = 99


class KinetoLog:
    """The level of the library's log, one for the process. Where torch does not export it, a variable sets it once."""

    def __init__(self, torch: Any) -> None:
        self._level: ctypes.c_int | None = None
        self._is_ready = False
        try:
            library = ctypes.CDLL(os.path.join(os.path.dirname(torch.__file__), "lib", "libtorch_cpu.so"))
            self._level = ctypes.c_int.in_dll(library, _LEVEL)
        except (OSError, ValueError, AttributeError):
            return

    def prepare(self, engine: Any, *args: Any) -> None:
        """Prepare a profile without a word. The first one in a process makes the library ready, which may warn.

        A build for CUDA does from torch 2.14 on, where there is no driver. What the variable says stays said.
        """
        if self._is_ready:
            self._prepare(engine, *args)
            return
        # The library starts a thread of its own.
        with hearing_no_signals():
            self._prepare(engine, *args)
        self._is_ready = True

    def _prepare(self, engine: Any, *args: Any) -> None:
        if _VARIABLE in os.environ:
            engine._prepare_profiler(*args)
            return
        if self._level is not None:
            with self.quiet():
                engine._prepare_profiler(*args)
            return
        os.environ[_VARIABLE] = str(_NOTHING)
        try:
            engine._prepare_profiler(*args)
        finally:
            del os.environ[_VARIABLE]

    @contextmanager
    def quiet(self) -> Iterator[None]:
        """Log nothing meanwhile: while the library is made ready, at the start and the stop of a profile.

        Made ready, it sets the level that the program's own profiles are to have: a level that is set stays.
        """
        level = self._level
        if level is None:
            yield
            return
        before, level.value = level.value, _NOTHING
        try:
            yield
        finally:
            if level.value == _NOTHING:
                level.value = before
