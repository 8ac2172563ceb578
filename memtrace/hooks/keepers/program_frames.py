"""The calls that the training thread is in, and their variables, without keeping a value alive by having looked."""

from __future__ import annotations

import dis
import os
import sys
import sysconfig
from collections.abc import Iterator
from functools import lru_cache
from types import CodeType, FrameType, ModuleType
from typing import Any, NamedTuple

from memtrace.schema.frames import WRAPPER_FILE

_OWN_FOLDER = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))) + os.sep
_LIBRARIES = tuple(
    os.path.abspath(path) + os.sep
    for name in ("stdlib", "platstdlib", "purelib", "platlib")
    if (path := sysconfig.get_paths().get(name))
)
INSTALLED = (f"{os.sep}site-packages{os.sep}", f"{os.sep}dist-packages{os.sep}")
"""What the path of an installed library has in it."""
_DEBUGGERS = frozenset({"bdb", "pdb", "pydevd", "debugpy", "_pydevd_bundle", "ipdb", "pudb"})
_OPTIMIZED = 0x1
_WRITES_THROUGH = sys.version_info >= (3, 13)
"""Whether `f_locals` is a view of the variables, which copies nothing."""
_OWN_REFERENCES = 3
_SEES_VARIABLES = frozenset({"locals", "vars", "eval", "exec", "dir"})


def program_frames(innermost: FrameType | None) -> Iterator[FrameType]:
    """Yield the running calls, innermost first, without memtrace's own, a debugger's, and those of torch that led here.

    What the arguments of those hold is in use, and the program has it under a name of its own.
    """
    frame = innermost
    while frame is not None and (is_own_file(frame.f_code.co_filename) or is_of_torch(frame)):
        frame = frame.f_back
    while frame is not None:
        if not is_own_file(frame.f_code.co_filename) and not _is_debugger(frame):
            yield frame
        frame = frame.f_back


@lru_cache(maxsize=4096)
def is_own_file(file: str) -> bool:
    """Return whether a file is one of memtrace's own."""
    return file == WRAPPER_FILE or (bool(file) and os.path.abspath(file).startswith(_OWN_FOLDER))


@lru_cache(maxsize=4096)
def is_program_file(file: str) -> bool:
    """Return whether a file is the program's: neither of Python, nor of an installed library, nor memtrace's."""
    if not file or (file.startswith("<") and not file.startswith("<ipython")):
        return False
    path = os.path.abspath(file)
    is_library = path.startswith(_LIBRARIES) or any(part in path for part in INSTALLED)
    return not is_library and not path.startswith(_OWN_FOLDER)


class Place(NamedTuple):
    """A line of the program."""

    file: str
    line: int
    function: str


def calling_line(innermost: FrameType | None) -> Place | None:
    """Return the line of the program that led to a call."""
    for frame in program_frames(innermost):
        if is_program_file(frame.f_code.co_filename):
            return line_of(frame)
    return None


def line_of(frame: FrameType) -> Place:
    """Return the line that a call is in."""
    return Place(frame.f_code.co_filename, frame.f_lineno or 0, frame.f_code.co_name)


class ProgramModules:
    """The modules that are the program's, by name; looked for again only where modules were imported since."""

    def __init__(self) -> None:
        self._num_known = 0
        self._names: tuple[str, ...] = ()

    def names(self) -> tuple[str, ...]:
        """Return their names, in the order in which they were imported."""
        if len(sys.modules) != self._num_known:
            self._names = tuple(name for name, module in list(sys.modules.items()) if _is_of_program(name, module))
            self._num_known = len(sys.modules)
        return self._names


def _is_of_program(name: str, module: Any) -> bool:
    file = vars(module).get("__file__") if isinstance(module, ModuleType) else None
    if type(file) is not str:
        # A notebook has no file.
        return name == "__main__" and module is not None
    # Some libraries make modules, and call them after a file in no folder.
    return (os.path.isabs(file) or name == "__main__") and is_program_file(file)


def variables_of(frame: FrameType) -> dict[str, Any]:
    """Return the variables of a call, for a moment: whoever asks lets go of them.

    Of a module they are its globals themselves. Before Python 3.13 a call has a dictionary that would keep the values:
    it is emptied again. Where the program may hold that dictionary itself, nothing is looked at.
    """
    code = frame.f_code
    if not code.co_flags & _OPTIMIZED:
        return frame.f_globals if frame.f_locals is frame.f_globals else {}
    if _WRITES_THROUGH:
        return dict(frame.f_locals)
    if _asks_for_variables(code):
        return {}
    shown: dict[str, Any] = frame.f_locals
    found = dict(shown)
    # One is the call's own, one is ours, one that of the function which counts.
    if sys.getrefcount(shown) <= _OWN_REFERENCES:
        for name in _names(code):
            shown.pop(name, None)
    return found


def ended_variables(frame: FrameType) -> dict[str, Any]:
    """Return the variables of a call that a traceback refers to; those of a module have a place of their own."""
    return variables_of(frame) if frame.f_code.co_flags & _OPTIMIZED else {}


@lru_cache(maxsize=1024)
def _asks_for_variables(code: CodeType) -> bool:
    """Return whether a function calls what gives it its variables as a dictionary; `net.eval()` does not."""
    if _SEES_VARIABLES.isdisjoint(code.co_names):
        return False
    loads = (one for one in dis.get_instructions(code) if one.opname in ("LOAD_GLOBAL", "LOAD_NAME"))
    return any(one.argval in _SEES_VARIABLES for one in loads)


def _names(code: CodeType) -> tuple[str, ...]:
    return (*code.co_varnames, *code.co_cellvars, *code.co_freevars)


def _is_debugger(frame: FrameType) -> bool:
    return _package(frame) in _DEBUGGERS


def is_of_torch(frame: FrameType) -> bool:
    """Return whether a call is one of torch's own."""
    return _package(frame) == "torch"


def _package(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__", "")).partition(".")[0]
