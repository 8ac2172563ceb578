"""A limit on how long a question may take: the answer is worked out in a thread of its own, which is told to stop."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable
from typing import Any

from memtrace.errors import MemtraceError

LIMIT_S = 300.0
"""A trace of a million events takes under two minutes."""


class OutOfTimeError(BaseException):
    """Ends the thread of a question that took too long; no reader that goes on after an error may hold it up."""


def within(limit_s: float, ask: Callable[[], Any]) -> Any:
    """Return what `ask` returns, or raise what it raises.

    Raises:
        MemtraceError: it took longer than the limit.
    """
    came: list[tuple[Any, Exception | None]] = []

    def work() -> None:
        try:
            came.append((ask(), None))
        except Exception as error:
            came.append((None, error))
        except OutOfTimeError:
            # Nobody waits for the answer any longer.
            return

    # A daemon: a thread that cannot be stopped, as inside a library in C, does not keep the server alive.
    thread = threading.Thread(target=work, name="memtrace-answer", daemon=True)
    thread.start()
    thread.join(limit_s)
    if not came:
        _stop(thread)
        raise MemtraceError(
            f"no answer within {limit_s:g} s", hint="ask `memtrace report` in a shell, or about a shorter recording"
        )
    answer, error = came[0]
    if error is not None:
        raise error
    return answer


def _stop(thread: threading.Thread) -> None:
    """Raise `OutOfTimeError` in a thread, as soon as it runs Python code again."""
    if thread.ident is not None:
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident), ctypes.py_object(OutOfTimeError))
