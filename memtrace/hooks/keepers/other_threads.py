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

from memtrace.hooks.keepers.program_frames import INSTALLED

_STANDARD = tuple(sysconfig.get_paths()[name] for name in ("stdlib", "platstdlib"))


def others_run() -> bool:
    """Return whether another thread runs anything but Python's own library, where threads wait."""
    own = threading.get_ident()
    return any(
        thread != own and not _is_standard(frame.f_code.co_filename) for thread, frame in sys._current_frames().items()
    )


@lru_cache(maxsize=1024)
def _is_standard(file: str) -> bool:
    if file.startswith("<frozen "):
        return True
    return file.startswith(_STANDARD) and not any(part in file for part in INSTALLED)
