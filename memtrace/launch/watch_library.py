"""The watch on torch's CPU allocator, compiled for the programs that are started here.

In: its sources beside the hooks. Out: a library, once for a machine; or none, and torch's profiler records the CPU.
"""

from __future__ import annotations

import sys

from memtrace.c_compiler import compiled
from memtrace.errors import MemtraceError
from memtrace.launch.command import PACKAGE_DIR

_SOURCES = PACKAGE_DIR / "memtrace" / "hooks" / "native"
_FLAGS = ("-std=gnu11", "-O2", "-shared", "-fPIC", "-fexceptions")


def watch_library() -> str | None:
    """Return the file of the library; `None` where there is no compiler, or not the kind of system that it is for."""
    if sys.platform != "linux" or sys.maxsize < 2**32:
        return None
    try:
        return str(compiled("watch", sorted(_SOURCES.glob("*.[ch]")), _FLAGS))
    except (MemtraceError, OSError):
        # It is what records best, and not what a recording needs.
        return None
