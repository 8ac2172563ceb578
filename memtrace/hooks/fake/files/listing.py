"""What is in a folder of which a part was written in a scratch folder, in the form that `os.scandir` gives."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator


class Entry:
    """One name in a folder, as `os.scandir` gives it."""

    def __init__(self, name: str, path: str, place: str) -> None:
        self.name = name
        self.path = path
        self._place = place

    def __fspath__(self) -> str:
        return self.path

    def inode(self) -> int:
        """Return the number of its inode."""
        return os.lstat(self._place).st_ino

    def is_dir(self, *, follow_symlinks: bool = True) -> bool:
        """Return whether it is a folder."""
        return os.path.isdir(self._place) and (follow_symlinks or not self.is_symlink())

    def is_file(self, *, follow_symlinks: bool = True) -> bool:
        """Return whether it is a file."""
        return os.path.isfile(self._place) and (follow_symlinks or not self.is_symlink())

    def is_symlink(self) -> bool:
        """Return whether it is a symbolic link."""
        return os.path.islink(self._place)

    def is_junction(self) -> bool:
        """Return whether it is a junction, which only Windows has."""
        return False

    def stat(self, *, follow_symlinks: bool = True) -> os.stat_result:
        """Return what the system knows of it."""
        return os.stat(self._place, follow_symlinks=follow_symlinks)


class Scan:
    """The names in a folder, as `os.scandir` gives them: to be iterated once, and closed."""

    def __init__(self, entries: Iterable[Entry]) -> None:
        self._entries = iter(entries)

    def __iter__(self) -> Iterator[Entry]:
        return self

    def __next__(self) -> Entry:
        return next(self._entries)

    def close(self) -> None:
        """Give no more names."""
        self._entries = iter(())

    def __enter__(self) -> Scan:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()
