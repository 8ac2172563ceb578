"""The log of torch's C++ side, kept from speaking of what memtrace does, and the allocator's table of blocks.

Both are flags that libc10 exports. Where it does not export them, nothing is changed. Inside a function of torch's (and
a callback of Python's collector may be called there), what its C++ side warns of goes not to the log but to Python's
warnings, once the function returns. So the log is also made the place that warnings of this thread go to.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

# Severities of c10/util/logging_is_not_google_glog.h; below a level nothing is printed.
_WARNING, _ERROR = 1, 2
_HANDLER = "_ZN3c1012WarningUtils19get_warning_handlerEv"
_SET_HANDLER = "_ZN3c1012WarningUtils19set_warning_handlerEPNS_14WarningHandlerE"


class NativeLog:
    """Two flags of libc10: the level of its log, and whether the CPU allocator remembers every block."""

    def __init__(self, torch: Any) -> None:
        self._level: ctypes.c_int | None = None
        self._track: ctypes.c_bool | None = None
        self._handlers: tuple[Any, Any] | None = None
        """Returns and sets what takes the warnings of this thread; null is the log."""
        try:
            library = ctypes.PyDLL(_libc10(torch))
            self._track = ctypes.c_bool.in_dll(library, "FLAGS_caffe2_report_cpu_memory_usage")
            self._level = ctypes.c_int.in_dll(library, "FLAGS_caffe2_log_level")
            handler, set_handler = library[_HANDLER], library[_SET_HANDLER]
        except (OSError, ValueError, AttributeError):
            return
        handler.restype, handler.argtypes = ctypes.c_void_p, ()
        set_handler.restype, set_handler.argtypes = None, (ctypes.c_void_p,)
        self._handlers = handler, set_handler

    @property
    def can_be_quiet(self) -> bool:
        """Whether every warning can be kept from being printed, or raised."""
        return self._level is not None and self._handlers is not None

    @contextmanager
    def quiet(self) -> Iterator[None]:
        """Print no warning meanwhile: the profiler warns of frames that begin within the clock's doubt of its stop."""
        with self._to_the_log():
            if self._level is None or self._level.value > _WARNING:
                yield
                return
            before, self._level.value = self._level.value, _ERROR
            try:
                yield
            finally:
                self._level.value = before

    @contextmanager
    def _to_the_log(self) -> Iterator[None]:
        if self._handlers is None:
            yield
            return
        handler, set_handler = self._handlers
        before = handler()
        set_handler(None)
        try:
            yield
        finally:
            set_handler(before)

    def track_all_blocks(self, torch: Any, with_profiler: Callable[[Callable[[], None]], object]) -> None:
        """Make the CPU allocator remember every block from now on, so that a free is known whoever allocated the block.

        Its flag for that also logs each event at the level INFO, so it is left alone where that level would be shown.
        Blocks older than this are freed unknown, and the first of every thousand such frees is reported on stderr:
        one is spent here, in `with_profiler`, while warnings are off.
        """
        if self._track is None or self._level is None or self._level.value < _WARNING or self._track.value:
            return
        unknown = [torch.empty(1)]
        with self.quiet():
            with_profiler(unknown.clear)
        self._track.value = True


def _libc10(torch: Any) -> str:
    name = {"darwin": "libc10.dylib", "win32": "c10.dll"}.get(sys.platform, "libc10.so")
    return os.path.join(os.path.dirname(torch.__file__), "lib", name)
