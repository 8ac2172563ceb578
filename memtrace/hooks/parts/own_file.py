"""A file of the recorder's own, in a process whose descriptors belong to the program.

Programs close descriptors by number and open their own: a number that was ours may be the program's checkpoint or
socket a moment later. So ours stand high, out of the way, and what a number leads to is looked at before each use.
"""

from __future__ import annotations

import errno
import os
from typing import IO

from memtrace.hooks.parts.as_imported import open_file, system

try:
    import fcntl
    import resource
except ImportError:  # Windows
    fcntl = resource = None  # type: ignore[assignment]

_LOWEST = (1024, 512, 200)
"""Where descriptors are moved, the first that the limit of open files allows; below the last, half the limit."""

_FLAGS = os.O_WRONLY | os.O_CREAT | getattr(os, "O_CLOEXEC", 0)


class FileLost(OSError):
    """The descriptor no longer leads to the file that was opened, or the file was removed."""


class OwnFile:
    """A file opened for writing; its descriptor is used only while it leads to that file."""

    def __init__(self, path: str, *, append: bool = False) -> None:
        """Open or create it. Raises OSError where that fails."""
        self._number = moved_up(system.open(path, _FLAGS | (os.O_APPEND if append else 0), 0o600))
        self._identity = identity_of(system.fstat(self._number))

    def check(self) -> None:
        """Raise FileLost where the descriptor was closed, taken by another file, or its file removed."""
        try:
            found = system.fstat(self._number)
        except OSError:
            raise FileLost(errno.EBADF, "the program closed the file of the recording") from None
        if identity_of(found) != self._identity:
            raise FileLost(errno.EBADF, "the program took the descriptor of the recording")
        if found.st_nlink == 0:
            raise FileLost(errno.ENOENT, "the files of the recording were removed")

    def append(self, data: bytes, *, size_before: int) -> None:
        """Write at the end, all or nothing: where that fails, the file is cut back to `size_before`."""
        rest = memoryview(data)
        try:
            while rest:
                self.check()
                rest = rest[system.write(self._number, rest) :]
        except FileLost:
            raise
        except BaseException:
            # A full disk, or Ctrl-C between two writes: the file ends with a whole line again.
            self._cut(size_before)
            raise

    def write_over(self, data: bytes | memoryview) -> None:
        """Write at the start, over what stands there."""
        self.check()
        system.pwrite(self._number, data, 0)

    def close(self) -> None:
        """Close it; a descriptor that is the program's by now is left alone."""
        close_own(self._number, self._identity)

    def _cut(self, size: int) -> None:
        try:
            self.check()
            system.ftruncate(self._number, size)
        except OSError:
            return


def open_private(path: str) -> IO[bytes]:
    """Return a new file that its owner alone may read: stacks name folders, and an exception may quote anything."""
    return open_file(path, "wb", opener=lambda name, flags: system.open(name, flags, 0o600))


def close_own(number: int, identity: tuple[int, int]) -> None:
    """Close a descriptor if it still leads to this file."""
    try:
        if identity_of(system.fstat(number)) == identity:
            system.close(number)
    except OSError:
        return


def identity_of(found: os.stat_result) -> tuple[int, int]:
    """Return what tells a file from every other."""
    return found.st_dev, found.st_ino


def moved_up(number: int) -> int:
    """Return a descriptor of the same file out of the way of the program's own, and close the low one."""
    command = getattr(fcntl, "F_DUPFD_CLOEXEC", None)
    if command is None:
        return number
    for lowest in (*_LOWEST, *_half_the_limit()):
        try:
            high = fcntl.fcntl(number, command, lowest)
        except OSError:
            # Beyond the limit of open files, or none is left.
            continue
        system.close(number)
        return high
    return number


def _half_the_limit() -> tuple[int, ...]:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return () if soft == resource.RLIM_INFINITY else (soft // 2,)
