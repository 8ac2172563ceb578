"""Keeps a prediction from writing over the user's files: what the program writes goes to a scratch folder.

Python's own ways to open, make, rename and remove files are replaced; a file that was written there is read from there.
Folders for temporary files and devices are left alone. What other languages write themselves is not caught.
"""

from __future__ import annotations

import builtins
import io
import os
import shutil
import tempfile
from collections.abc import Callable
from typing import Any

_WRITING = frozenset("wax+")
_FREE = ("/dev/", "/proc/")


class Scratch:
    """The scratch folder, and where each path of the program lies in it."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._free = (*_FREE, os.path.realpath(tempfile.gettempdir()) + os.sep, os.path.realpath(folder) + os.sep)
        self.num_files = 0
        """Files that were written here and not where the program said."""
        self._exists, self._make = os.path.lexists, os.makedirs
        self._stat = os.stat

    def install(self) -> None:
        """Replace what writes. Affects: builtins, io, os, shutil, for the rest of the process."""
        opened, modules = io.open, (builtins, io)
        for module in modules:
            module.open = self._open(opened)  # type: ignore[attr-defined]
        target: Any = os
        for name in ("stat", "lstat", "listdir"):
            setattr(target, name, self._reading(getattr(os, name)))
        for name in ("mkdir", "remove", "unlink", "rmdir"):
            setattr(target, name, self._writing(getattr(os, name)))
        for name in ("rename", "replace"):
            setattr(target, name, self._moving(getattr(os, name)))
        tree: Any = shutil
        tree.rmtree = self._writing(shutil.rmtree)

    def _inside(self, path: Any) -> str | None:
        """Return where a path lies in the scratch folder; `None` for one that is left alone."""
        if not isinstance(path, (str, os.PathLike)):
            return None
        text = os.path.abspath(os.fspath(path))
        if not isinstance(text, str) or (os.path.dirname(text) + os.sep).startswith(self._free):
            return None
        return os.path.join(self._folder, text.lstrip(os.sep))

    def _is_there(self, inside: str) -> bool:
        try:
            self._stat(inside)
        except OSError:
            return False
        return True

    def _parents(self, inside: str) -> None:
        missing = []
        folder = os.path.dirname(inside)
        while not self._is_there(folder):
            missing.append(folder)
            folder = os.path.dirname(folder)
        for one in reversed(missing):
            self._mkdir(one)

    def _open(self, opened: Callable[..., Any]) -> Callable[..., Any]:
        self._mkdir = os.mkdir

        def open(file: Any, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
            inside = self._inside(file)
            if inside is None:
                return opened(file, mode, *args, **kwargs)
            if not _WRITING & set(mode):
                return opened(inside if self._is_there(inside) else file, mode, *args, **kwargs)
            self._parents(inside)
            if not self._is_there(inside):
                self.num_files += 1
                if ("a" in mode or "r" in mode) and self._is_there(os.fspath(file)):
                    shutil.copyfile(file, inside)
            return opened(inside, mode, *args, **kwargs)

        return open

    def _reading(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def read(path: Any = ".", *args: Any, **kwargs: Any) -> Any:
            inside = self._inside(path)
            return call(inside if inside is not None and self._is_there(inside) else path, *args, **kwargs)

        return read

    def _writing(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def write(path: Any, *args: Any, **kwargs: Any) -> Any:
            inside = self._inside(path)
            if inside is None:
                return call(path, *args, **kwargs)
            if call.__name__ != "mkdir":
                # What the program did not write itself is not removed either.
                return call(inside, *args, **kwargs) if self._is_there(inside) else None
            if self._is_there(os.fspath(path)):
                raise FileExistsError(17, "File exists", os.fspath(path))
            self._parents(inside)
            return call(inside, *args, **kwargs)

        return write

    def _moving(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def move(source: Any, target: Any, **kwargs: Any) -> Any:
            inside, wanted = self._inside(source), self._inside(target)
            if inside is None and wanted is None:
                return call(source, target, **kwargs)
            if inside is not None and not self._is_there(inside):
                return None
            wanted = wanted or os.fspath(target)
            self._parents(wanted)
            return call(inside or source, wanted, **kwargs)

        return move
