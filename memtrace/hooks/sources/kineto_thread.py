"""The thread that the profiler's library starts with its first profile, ended before the process forks.

A forked child has the library's memory and not the thread, and waits for it for ever when it exits by the C library's
`exit`. A bare program that runs no profiler has no such thread, so neither may a recorded one that forks.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from typing import Any

_INSTANCE = "_ZN9libkineto12ConfigLoader8instanceEv"
_STOP = "_ZN9libkineto12ConfigLoader10stopThreadEv"


def end_thread_before_forks(torch: Any) -> None:
    """End the thread before each fork of this process, and of no other; for good, as callbacks at a fork are.

    Without the thread, only profiles that are asked for from outside the program (a daemon's) begin no more.
    """
    stop = _stopper(torch)
    pid = os.getpid()
    if stop is not None and hasattr(os, "register_at_fork"):
        os.register_at_fork(before=lambda: stop() if os.getpid() == pid else None)


def _stopper(torch: Any) -> Callable[[], None] | None:
    """Return what ends the thread, if it runs; None where this torch does not let it be reached."""
    try:
        library = ctypes.CDLL(os.path.join(os.path.dirname(torch.__file__), "lib", "libtorch_cpu.so"))
        instance, stop = library[_INSTANCE], library[_STOP]
    except (OSError, AttributeError):
        return None
    instance.restype, instance.argtypes = ctypes.c_void_p, ()
    stop.restype, stop.argtypes = None, (ctypes.c_void_p,)
    return lambda: stop(instance())
