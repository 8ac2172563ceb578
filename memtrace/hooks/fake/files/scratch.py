"""Where a program's files are while it is predicted: what it writes lies in a scratch folder, over what was there.

Only paths are worked out here, and copies made; which calls go through this stands in `files.py`. A path is in one of
three states: left alone (devices, what `tempfile` made in this run), written by the program (it lies in the scratch
folder), or as it was. What the program removed is remembered and not touched.
"""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable
from typing import Any

_FREE = ("/dev/", "/proc/", "/sys/")
_MOST_COPIED_BYTES = 1 << 30
"""Largest file that is copied so that the program can change it in place."""


def error_of(number: int, path: Any) -> OSError:
    """Return the error that the system would raise: of a number, `OSError` makes the right subclass."""
    return OSError(number, os.strerror(number), os.fspath(path))


class Scratch:
    """The scratch folder, and where each path of the program lies."""

    def __init__(self, folder: str, *, left_alone: Iterable[str] = ()) -> None:
        self.folder = os.path.realpath(folder)
        # Beside the scratch folder lies what memtrace itself writes.
        beside = (os.path.dirname(self.folder), *map(os.path.abspath, left_alone))
        self._free = (*_FREE, *(one + os.sep for one in beside))
        self._temporary = os.path.abspath(tempfile.gettempdir())
        self._made: set[str] = set()
        self.makes_temporary = False
        """Whether `tempfile` chooses a path now: one in the folder for temporary files is left alone from then on."""
        self._removed: set[str] = set()
        self.num_files = 0
        """Files that were written here and not where the program said."""
        self._lstat, self._mkdir, self._stat, self._unlink = os.lstat, os.mkdir, os.stat, os.unlink
        self._copy: Callable[[str, str], Any] = _copier()

    # Questions

    def inside(self, path: Any) -> str | None:
        """Return where a path would lie in the scratch folder; `None` for one that is left alone."""
        if not isinstance(path, (str, bytes, os.PathLike)):
            return None
        text = os.path.abspath(os.fsdecode(path))
        if text == self.folder or text.startswith(self.folder + os.sep):
            return text
        if self.makes_temporary and os.path.dirname(text) == self._temporary:
            self._made.add(text + os.sep)
        if (text + os.sep).startswith(self._free) or any((text + os.sep).startswith(one) for one in self._made):
            return None
        return os.path.join(self.folder, text.lstrip(os.sep))

    def is_there(self, place: str) -> bool:
        """Return whether something lies at a real place."""
        try:
            self._lstat(place)
        except (OSError, ValueError):
            return False
        return True

    def original(self, inside: str) -> str | None:
        """Return the path as it was before the run; `None` if nothing was there, or the program removed it."""
        text = inside[len(self.folder) :] or os.sep
        ancestor = text
        while len(ancestor) > 1:
            if ancestor in self._removed:
                return None
            ancestor = os.path.dirname(ancestor)
        return text if self.is_there(text) else None

    def seen(self, path: Any) -> Any:
        """Return the place that a program which reads a path is to be given."""
        inside = self.inside(path)
        if inside is None:
            return path
        if self.is_there(inside) or self.original(inside) is None:
            return inside
        original = inside[len(self.folder) :]
        return path if os.path.abspath(os.fsdecode(path)) == original else original

    def exists(self, path: Any) -> bool:
        """Return whether a path is there as the program sees it."""
        inside = self.inside(path)
        if inside is None:
            return self.is_there(os.fsdecode(path))
        return self.is_there(inside) or self.original(inside) is not None

    # Changes

    def target(self, path: Any, *, copy: bool) -> Any:
        """Return the place that a program which writes a path is to be given.

        Args:
            path: of the program.
            copy: whether what the file held before is to be found there.

        Raises:
            OSError: the file is too large to be copied.
        """
        inside = self.inside(path)
        if inside is None:
            return path
        original = self.original(inside)
        if self.is_there(inside):
            if not self._leads_outside(inside):
                return inside
            self._unlink(inside)
        elif original is not None and os.path.isdir(original):
            return original
        if not self.make_parents(inside):
            return inside
        self.num_files += 1
        if copy and original is not None:
            self._bring(original, inside)
        return inside

    def make_parents(self, inside: str) -> bool:
        """Make the folders above a place, if the program sees them. Return whether it does."""
        parent = os.path.dirname(inside)
        if self.is_there(parent):
            return True
        if self.original(parent) is None or not self.make_parents(parent):
            return False
        self._mkdir(parent)
        return True

    def forget(self, inside: str) -> None:
        """Hide what was at a path before the run."""
        self._removed.add(inside[len(self.folder) :])

    def bring(self, path: Any) -> str | None:
        """Return the place of a file in the scratch folder, copied there if it was not; `None` if it is left alone."""
        inside = self.inside(path)
        if inside is None or self.is_there(inside):
            return inside
        original = self.original(inside)
        if original is None:
            raise error_of(errno.ENOENT, path)
        if os.path.isdir(original):
            # As between two file systems: `shutil.move` then copies file by file.
            raise error_of(errno.EXDEV, path)
        self.make_parents(inside)
        self._bring(original, inside)
        return inside

    def _bring(self, original: str, inside: str) -> None:
        size = self._stat(original).st_size
        if size > _MOST_COPIED_BYTES:
            raise OSError(
                errno.EFBIG,
                f"a prediction does not copy a file of {size} bytes to be changed (--allow-writes)",
                original,
            )
        self._copy(original, inside)

    def _leads_outside(self, inside: str) -> bool:
        real = os.path.realpath(inside)
        return real != inside and not real.startswith(self.folder + os.sep) and os.path.islink(inside)


def _copier() -> Callable[[str, str], Any]:
    opened = open

    def copy(source: str, target: str) -> None:
        with opened(source, "rb") as read, opened(target, "wb") as written:
            shutil.copyfileobj(read, written)

    return copy
