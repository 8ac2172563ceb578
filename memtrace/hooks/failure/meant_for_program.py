"""Exceptions that come up inside hooks and are not ours: raised by a signal's handler, or set from another thread.

A time limit of a program is an exception that its handler of SIGALRM raises, wherever the program is at that moment; in
a hook of ours as well as anywhere else. It has to arrive where it would without the hook.
"""

from __future__ import annotations

import _thread
import ctypes
import sys
from collections.abc import Iterator
from types import FrameType, TracebackType
from typing import Any

from memtrace.hooks.failure.tracebacks import is_own

_NOT_OF_THE_PROGRAM = frozenset({"builtins", "memtrace", "torch", *sys.stdlib_module_names})


def pass_on(error: BaseException) -> None:
    """Raise an exception again that was meant for the program, from its handler on; return if it is ours."""
    frames = list(_entries(error.__traceback__))
    handler = next((entry for entry in frames if _is_handler(entry.tb_frame)), None)
    if handler is not None or _was_set_from_outside(error, [entry.tb_frame for entry in frames]):
        raise error.with_traceback(handler)


def raise_afterwards(error: BaseException) -> None:
    """Let an exception come up in this thread a moment after the function has returned that calls this one.

    Python drops what callbacks of its collector raise. Another thread than this one sets it, or it would come up here.
    """
    # An exception is set by its type alone; this one makes itself the other.
    again = type("Again", (BaseException,), {"__new__": lambda _cls, *_args: error})
    raised = ctypes.pythonapi.PyThreadState_SetAsyncExc
    _thread.start_new_thread(raised, (ctypes.c_ulong(_thread.get_ident()), ctypes.py_object(again)))


def _entries(tb: TracebackType | None) -> Iterator[TracebackType]:
    while tb is not None:
        yield tb
        tb = tb.tb_next


def _is_handler(frame: FrameType) -> bool:
    """Whether a frame is called with the one that it interrupted, as Python calls handlers of signals alone.

    The handler that is registered by now may be another one.
    """
    caller = frame.f_back
    if caller is None or is_own(frame):
        return False
    return any(value is caller for value in _arguments(frame))


def _arguments(frame: FrameType) -> Iterator[Any]:
    variables = frame.f_locals
    for name in frame.f_code.co_varnames:
        value = variables.get(name)
        yield from value if type(value) is tuple else (value,)


def _was_set_from_outside(error: BaseException, frames: list[FrameType]) -> bool:
    """Whether nothing that ran here can have raised it: a type of the program's, and not a line of its code.

    `PyThreadState_SetAsyncExc` makes it of the type alone, without arguments.
    """
    if error.args or not frames:
        return False
    if isinstance(error, TimeoutError):
        return True
    of_program = type(error).__module__.partition(".")[0] not in _NOT_OF_THE_PROGRAM
    return of_program and all(_package(frame) in _NOT_OF_THE_PROGRAM for frame in frames)


def _package(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__", "")).partition(".")[0]
