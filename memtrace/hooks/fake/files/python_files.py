"""Keeps a prediction from writing over the user's files: Python's ways to them go through the scratch folder.

Replaced are the functions of `io`, `os`, `shutil` and `tempfile` that open, make, list, rename and remove files, and
`sqlite3`'s. What is written in another language is not caught, unless `checkpoints.py` or `safetensors.py` know it.
"""

from __future__ import annotations

import builtins
import errno
import io
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterable
from contextlib import suppress
from importlib import import_module
from typing import Any

from memtrace.hooks.fake.files.listing import Entry, Scan
from memtrace.hooks.fake.files.scratch import Scratch, error_of

_WRITING = frozenset("wax+")
_WRITING_FLAGS = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_UNNAMED = getattr(os, "O_TMPFILE", 0)

_READING = "stat lstat access readlink statvfs chdir getxattr listxattr"
_CHANGING = "chmod chown lchown utime truncate setxattr removexattr"
_MAKING = "mkfifo mknod"
_OLD_NAMES = (("tarfile", "bltn_open"), ("bz2", "_builtin_open"))
"""Modules that keep `open` under a name of their own."""

Call = Callable[..., Any]


class Files:
    """The replacements, all of which ask one scratch folder."""

    def __init__(self, scratch: Scratch) -> None:
        self._scratch = scratch
        self._listdir, self._scandir, self._rmtree = os.listdir, os.scandir, shutil.rmtree

    def install(self) -> None:
        """Replace what opens and changes files. Affects: the process, for the rest of it."""
        for module in (builtins, io):
            module.open = self._open(io.open)  # type: ignore[attr-defined]
        for module_name, name in _OLD_NAMES:
            with suppress(ImportError):
                setattr(import_module(module_name), name, builtins.open)
        for names, wrapped in (
            (_READING, self._reading),
            (_CHANGING, self._changing),
            (_MAKING, self._making),
            ("remove unlink", self._removing),
            ("rename replace", self._moving),
        ):
            for name in names.split():
                if hasattr(os, name):
                    setattr(os, name, _named(wrapped(getattr(os, name)), name))
        target: Any = os
        target.open, target.mkdir, target.rmdir = self._os_open(os.open), self._mkdir(os.mkdir), self._rmdir(os.rmdir)
        target.link, target.symlink = self._link(), self._symlink(os.symlink)
        target.listdir, target.scandir = self._listed, self._scanned
        tree: Any = shutil
        tree.rmtree = self._remove_tree
        self._install_tempfile()
        self._install_sqlite()
        if sys.version_info < (3, 11):
            _refresh_pathlib()

    # Opening

    def _open(self, opened: Call) -> Call:
        def open(file: Any, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
            if self._scratch.inside(file) is None or len(args) > 5 or kwargs.get("opener") is not None:
                return opened(file, mode, *args, **kwargs)
            if not _WRITING & set(mode):
                return opened(self._scratch.seen(file), mode, *args, **kwargs)
            if "x" in mode and self._scratch.exists(file):
                raise error_of(errno.EEXIST, file)
            place = self._scratch.target(file, copy="w" not in mode)
            return _under_own_name(file, opened, place, mode, *args, **kwargs)

        return open

    def _os_open(self, opened: Call) -> Call:
        def open(path: Any, flags: int, *args: Any, dir_fd: Any = None, **kwargs: Any) -> int:
            is_unnamed = bool(_UNNAMED) and flags & _UNNAMED == _UNNAMED
            if dir_fd is not None or is_unnamed or self._scratch.inside(path) is None:
                return int(opened(path, flags, *args, dir_fd=dir_fd, **kwargs))
            if not flags & _WRITING_FLAGS:
                return int(opened(self._scratch.seen(path), flags, *args, **kwargs))
            is_there = self._scratch.exists(path)
            if flags & os.O_EXCL and is_there:
                raise error_of(errno.EEXIST, path)
            if not flags & os.O_CREAT and not is_there:
                raise error_of(errno.ENOENT, path)
            place = self._scratch.target(path, copy=not flags & os.O_TRUNC)
            # Where nothing is copied, what was there before is to be seen as emptied.
            return int(opened(place, flags | (os.O_CREAT if is_there else 0), *args, **kwargs))

        return open

    # Functions of one path

    def _reading(self, call: Call) -> Call:
        def read(path: Any = ".", *args: Any, **kwargs: Any) -> Any:
            if kwargs.get("dir_fd") is not None:
                return call(path, *args, **kwargs)
            return _under_own_name(path, call, self._scratch.seen(path), *args, **kwargs)

        return read

    def _changing(self, call: Call) -> Call:
        def change(path: Any, *args: Any, **kwargs: Any) -> Any:
            inside = None if kwargs.get("dir_fd") is not None else self._scratch.inside(path)
            if inside is None:
                return call(path, *args, **kwargs)
            if call.__name__ == "truncate":
                inside = self._scratch.target(path, copy=True)
            elif not self._scratch.is_there(inside) and self._scratch.original(inside) is not None:
                return None
            return _under_own_name(path, call, inside, *args, **kwargs)

        return change

    def _making(self, call: Call) -> Call:
        def make(path: Any, *args: Any, **kwargs: Any) -> Any:
            return call(self._scratch.target(path, copy=False), *args, **kwargs)

        return make

    def _mkdir(self, call: Call) -> Call:
        def mkdir(path: Any, *args: Any, **kwargs: Any) -> None:
            inside = None if kwargs.get("dir_fd") is not None else self._scratch.inside(path)
            if inside is None:
                call(path, *args, **kwargs)
            elif self._scratch.exists(path):
                raise error_of(errno.EEXIST, path)
            elif not self._scratch.make_parents(inside):
                raise error_of(errno.ENOENT, path)
            else:
                call(inside, *args, **kwargs)

        return mkdir

    def _removing(self, call: Call) -> Call:
        def remove(path: Any, *args: Any, **kwargs: Any) -> None:
            inside = None if kwargs.get("dir_fd") is not None else self._scratch.inside(path)
            if inside is None:
                call(path, *args, **kwargs)
                return
            if not self._scratch.exists(path):
                raise error_of(errno.ENOENT, path)
            if self._scratch.is_there(inside):
                call(inside)
            self._scratch.forget(inside)

        return remove

    def _rmdir(self, call: Call) -> Call:
        remove = self._removing(call)

        def rmdir(path: Any, *args: Any, **kwargs: Any) -> None:
            if self._scratch.inside(path) is not None and kwargs.get("dir_fd") is None and self._listed(path):
                raise error_of(errno.ENOTEMPTY, path)
            remove(path, *args, **kwargs)

        return rmdir

    def _remove_tree(self, path: Any, ignore_errors: bool = False, *args: Any, **kwargs: Any) -> None:
        inside = None if kwargs.get("dir_fd") is not None else self._scratch.inside(path)
        if inside is None:
            self._rmtree(path, ignore_errors, *args, **kwargs)
            return
        if not self._scratch.exists(path):
            # As ever, for the error that the program expects or the handler that it gives.
            self._rmtree(inside, ignore_errors, *args, **kwargs)
        elif self._scratch.is_there(inside):
            self._rmtree(inside, ignore_errors, *args, **kwargs)
        self._scratch.forget(inside)

    # Functions of two paths

    def _moving(self, call: Call) -> Call:
        def move(source: Any, target: Any, **kwargs: Any) -> None:
            if self._scratch.inside(source) is None and self._scratch.inside(target) is None:
                call(source, target, **kwargs)
                return
            inside = self._scratch.bring(source)
            wanted = self._scratch.inside(target)
            if wanted is not None and not self._scratch.make_parents(wanted):
                raise error_of(errno.ENOENT, target)
            call(source if inside is None else inside, target if wanted is None else wanted, **kwargs)
            if inside is not None:
                self._scratch.forget(inside)

        return move

    def _link(self) -> Call:
        def link(source: Any, target: Any, **_kwargs: Any) -> None:
            # A second name of the user's file would be a way to write to it: a copy is safe.
            if self._scratch.exists(target):
                raise error_of(errno.EEXIST, target)
            shutil.copyfile(source, target)

        return link

    def _symlink(self, call: Call) -> Call:
        def symlink(source: Any, target: Any, *args: Any, **kwargs: Any) -> None:
            if self._scratch.inside(target) is None:
                call(source, target, *args, **kwargs)
                return
            if self._scratch.exists(target):
                raise error_of(errno.EEXIST, target)
            meant = os.path.join(os.path.dirname(os.path.abspath(os.fsdecode(target))), os.fsdecode(source))
            call(os.path.abspath(self._scratch.seen(meant)), self._scratch.target(target, copy=False), *args, **kwargs)

        return symlink

    # Lists

    def _names(self, path: Any) -> Iterable[tuple[str, str]] | None:
        """Return name and place of what is in a folder, from both layers; `None` where there is but one."""
        inside = self._scratch.inside(path)
        if inside is None or isinstance(path, bytes):
            return None
        original = self._scratch.original(inside)
        if original is None or original == inside:
            return None
        found = {name: os.path.join(original, name) for name in self._listdir(original)}
        found = {name: one for name, one in found.items() if self._scratch.original(os.path.join(inside, name))}
        if self._scratch.is_there(inside):
            found |= {name: os.path.join(inside, name) for name in self._listdir(inside)}
        return found.items()

    def _listed(self, path: Any = ".") -> list[Any]:
        names = self._names(path)
        if names is not None:
            return [name for name, _place in names]
        return list(_under_own_name(path, self._listdir, self._scratch.seen(path)))

    def _scanned(self, path: Any = ".") -> Any:
        names = self._names(path)
        if names is None:
            return _under_own_name(path, self._scandir, self._scratch.seen(path))
        return Scan(Entry(name, os.path.join(os.fspath(path), name), place) for name, place in names)

    # Others

    def _install_tempfile(self) -> None:
        """Leave alone what `tempfile` makes in the folder for temporary files: other languages may be given it."""
        module: Any = tempfile
        for name in ("mkdtemp", "_mkstemp_inner"):
            setattr(module, name, self._making_temporary(getattr(module, name)))

    def _making_temporary(self, make: Call) -> Call:
        def made(*args: Any, **kwargs: Any) -> Any:
            before, self._scratch.makes_temporary = self._scratch.makes_temporary, True
            try:
                return make(*args, **kwargs)
            finally:
                self._scratch.makes_temporary = before

        return made

    def _install_sqlite(self) -> None:
        with suppress(ImportError):
            module: Any = import_module("sqlite3")
            connect = module.connect

            def connected(database: Any, *args: Any, **kwargs: Any) -> Any:
                if database == ":memory:" or database == "" or kwargs.get("uri"):
                    return connect(database, *args, **kwargs)
                return connect(self._scratch.target(database, copy=True), *args, **kwargs)

            module.connect = module.dbapi2.connect = connected


def _under_own_name(path: Any, call: Call, place: Any, *args: Any, **kwargs: Any) -> Any:
    """Call with the place; an error names the path that the program gave."""
    try:
        return call(place, *args, **kwargs)
    except OSError as error:
        if error.filename == place:
            error.filename = path
        raise


def _named(function: Call, name: str) -> Call:
    function.__name__ = name
    return function


def _refresh_pathlib() -> None:
    """Give `pathlib` the replacements: up to Python 3.10 it keeps the functions of `os` that it found."""
    accessor: Any = getattr(import_module("pathlib"), "_NormalAccessor", None)
    for name in ("stat", "listdir", "scandir", "chmod", "mkdir", "unlink", "rmdir", "rename", "replace", "readlink"):
        if hasattr(accessor, name):
            setattr(accessor, name, staticmethod(getattr(os, name)))
    if hasattr(accessor, "open"):
        accessor.open = staticmethod(io.open)
