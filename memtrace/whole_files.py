"""Writing an output whole or not at all; what is no regular file (a pipe, a terminal, a device) is written through."""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
from collections.abc import Callable
from pathlib import Path
from typing import IO

_OF_THE_SYSTEM = ("/dev/", "/proc/")


def write_whole(path: Path, write: Callable[[IO[bytes]], object], *, private: bool = False) -> None:
    """Let `write` fill a file, which takes the place of the one at `path` when it is complete. Raises OSError.

    The file is made with the rights of any new file, if it is `private` with those of its owner alone. A link stays,
    and what it leads to is replaced.
    """
    if not is_replaceable(path):
        with open(path, "ab") as file:
            write(file)
        return
    target = Path(os.path.realpath(path))
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}.tmp")
    try:
        with open(temporary, "xb", opener=_open_private if private else None) as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise


def _open_private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def is_replaceable(path: Path) -> bool:
    """Return whether a name is of a regular file, or free: /dev/stdout is neither, even where it leads to a file."""
    names = (os.path.abspath(path), os.path.realpath(path))
    if any(name.startswith(_OF_THE_SYSTEM) and not name.startswith("/dev/shm/") for name in names):
        return not os.path.lexists(path)
    try:
        return stat.S_ISREG(os.stat(path).st_mode)
    except OSError:
        return True
