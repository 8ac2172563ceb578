"""Opening a file to read it: a regular one only, without waiting, and below a folder only where reading is confined.

What is checked is the file that was opened and not its name, which may lead elsewhere by the time it is opened.
"""

from __future__ import annotations

import contextvars
import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

_root: contextvars.ContextVar[Path | None] = contextvars.ContextVar("memtrace_reading_root", default=None)
# A pipe would wait for a writer, and a terminal would become that of this process.
_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY


class NotRegularError(OSError):
    """A pipe waits for a writer, a device may never end: neither is read."""


@contextmanager
def reading_below(root: Path | None) -> Iterator[None]:
    """Within this, in this thread, files that do not lie below a folder do not exist; None confines nothing."""
    token = _root.set(None if root is None else Path(os.path.realpath(root)))
    try:
        yield
    finally:
        _root.reset(token)


def is_within_reach(path: Path) -> bool:
    """Return whether a name leads to something that may be read, be it by links."""
    root = _root.get()
    try:
        return root is None or Path(os.path.realpath(path)).is_relative_to(root)
    except ValueError:
        return False


def open_regular(path: Path) -> BinaryIO:
    """Return a regular file, opened for reading.

    Raises:
        NotRegularError: it is something else. FileNotFoundError: it is not there, or lies outside. OSError: unreadable.
    """
    if not is_within_reach(path):
        raise _absent(path)
    try:
        number = os.open(path, _FLAGS)
    except ValueError:
        # A name that no file can have.
        raise _absent(path) from None
    except OSError as error:
        # What opening a socket ends in.
        if error.errno == errno.ENXIO:
            raise NotRegularError(errno.ENXIO, "not a regular file", str(path)) from None
        raise
    try:
        if not stat.S_ISREG(os.fstat(number).st_mode):
            raise NotRegularError(errno.EINVAL, "not a regular file", str(path))
        if not _is_opened_within_reach(number, path):
            raise _absent(path)
        return os.fdopen(number, "rb")
    except BaseException:
        os.close(number)
        raise


def read_small(path: Path, *, max_bytes: int) -> bytes:
    """Return the content of a regular file that is known to be small.

    Raises:
        NotRegularError: it is something else. FileNotFoundError: it is not there, or lies outside.
        OSError: unreadable, or larger.
    """
    with open_regular(path) as file:
        content = file.read(max_bytes + 1)
    if len(content) > max_bytes:
        raise OSError(errno.EFBIG, f"larger than {max_bytes} bytes", str(path))
    return content


def _is_opened_within_reach(number: int, path: Path) -> bool:
    """Return whether an open file lies below the root, whatever its name leads to by now."""
    root = _root.get()
    if root is None:
        return True
    link = f"/proc/self/fd/{number}"
    if os.path.lexists(link):
        return Path(os.readlink(link)).is_relative_to(root)
    # Elsewhere than on Linux: the name is looked up again, and has to lead to the very file that is open.
    real = Path(os.path.realpath(path))
    return real.is_relative_to(root) and os.path.samestat(os.fstat(number), os.lstat(real))


def _absent(path: Path) -> FileNotFoundError:
    return FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
