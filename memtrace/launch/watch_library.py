"""The watch on torch's CPU allocator, compiled for the programs that are started here.

In: its sources beside the hooks. Out: a library, once for a machine; or none, and torch's profiler records the CPU.
"""

from __future__ import annotations

import sys
from pathlib import Path

from memtrace.c_compiler import compiled
from memtrace.errors import MemtraceError
from memtrace.launch.command import PACKAGE_DIR

_SOURCES = PACKAGE_DIR / "memtrace" / "hooks" / "native"
_FLAGS = ("-std=gnu11", "-O2", "-shared", "-fPIC", "-fexceptions")


def watch_library() -> str | None:
    """Return the file of the library, `None` where there can be none: it records best, and no recording needs it."""
    try:
        return str(compiled_watch())
    except MemtraceError:
        return None


def compiled_watch() -> Path:
    """Return the file of the library, compiled if it is not there yet.

    Raises:
        MemtraceError: there is no compiler, or this is not the kind of system that it is for.
    """
    if sys.platform != "linux" or sys.maxsize < 2**32:
        raise MemtraceError("the CPU's allocator is watched on 64-bit Linux only")
    return compiled("watch", sorted(_SOURCES.glob("*.[ch]")), _FLAGS)
