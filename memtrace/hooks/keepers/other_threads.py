"""Whether other threads may be in the midst of letting go of tensors.

A tensor that only C++ keeps (a graph does) has an object of Python's, too, and dies without the GIL: between its own
end and that of the object it is none any more. Whoever takes it from the collector's tables then ends the program by a
fault.
"""

from __future__ import annotations

import sys
import sysconfig
import threading
from functools import lru_cache
from types import FrameType

from memtrace.hooks.keepers.program_frames import INSTALLED, is_of_torch, is_program_file

_STANDARD = tuple(sysconfig.get_paths()[name] for name in ("stdlib", "platstdlib"))


def others_run() -> bool:
    """Return whether another thread runs the program, or a library that knows of torch."""
    return bool(busy_threads())


def busy_threads() -> frozenset[int]:
    """Return the threads but the calling one that do."""
    frames = sys._current_frames()
    # Its own refers to this dictionary: a cycle, by which all calls that led here would keep their variables.
    frames.pop(threading.get_ident(), None)
    return frozenset(thread for thread, frame in frames.items() if _may_hold_tensors(frame))


def _may_hold_tensors(innermost: FrameType) -> bool:
    """Return whether a thread may be at work with tensors; in Python's own library it waits."""
    file = innermost.f_code.co_filename
    if _is_standard(file):
        return False
    return is_program_file(file) or "torch" in innermost.f_globals or is_of_torch(innermost)


@lru_cache(maxsize=1024)
def _is_standard(file: str) -> bool:
    if file.startswith("<frozen "):
        return True
    return file.startswith(_STANDARD) and not any(part in file for part in INSTALLED)
