"""Room for a file to be opened, at moments at which the program may have used up every descriptor.

torch's profiler opens files when it starts and stops, and complains on stderr where it cannot. A chunk is a file too.
"""

from __future__ import annotations

import errno
import os
from types import TracebackType

from memtrace.hooks.parts.as_imported import system
from memtrace.hooks.parts.own_file import close_own, identity_of, moved_up

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

_NEEDED = 16


class Room:
    """A `with` block in which a descriptor is to be had: one held in reserve, or one beyond the program's limit."""

    def __init__(self) -> None:
        self._spare: int | None = None
        self._identity = (0, 0)
        self._limits: tuple[int, int] | None = None
        self._depth = 0

    def __enter__(self) -> None:
        self._depth += 1
        if self._depth > 1:
            return
        self.let_go()
        if resource is not None and not _can_open():
            self._limits = _raised_limit()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._depth -= 1
        if self._depth:
            return
        if self._limits is not None:
            resource.setrlimit(resource.RLIMIT_NOFILE, self._limits)
            self._limits = None
        self.reserve()

    def reserve(self) -> None:
        """Take a descriptor for later, if there is one. It leads to a file of no name and no bytes."""
        if self._spare is not None or not hasattr(os, "memfd_create"):
            return
        try:
            self._spare = moved_up(system.memfd_create("memtrace"))
            self._identity = identity_of(system.fstat(self._spare))
        except OSError:
            self._spare = None

    def let_go(self) -> None:
        """Keep none in reserve; one that the program has closed or taken is not ours any more."""
        number, self._spare = self._spare, None
        if number is not None:
            close_own(number, self._identity)


def _can_open() -> bool:
    try:
        system.close(system.open(os.devnull, os.O_RDONLY))
    except OSError as error:
        return error.errno != errno.EMFILE
    return True


def _raised_limit() -> tuple[int, int] | None:
    """Let this process open some files more, for a moment; return the limits as they were, None if it may not."""
    soft, hard = limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    # Descriptors above a limit that was lowered may be open.
    for more in (soft + _NEEDED, hard):
        if soft < more <= hard or (hard == resource.RLIM_INFINITY and more != hard):
            resource.setrlimit(resource.RLIMIT_NOFILE, (more, hard))
            if _can_open():
                return limits
    resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    return None
