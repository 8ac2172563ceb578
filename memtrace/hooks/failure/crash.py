"""How a recorded program ends: its uncaught exception and its orderly exit, seen without changing either.

The exception hooks are chained, never replaced, and no signal handler is installed: a Python handler for SIGTERM would
delay the death of a rank that is blocked in C++, and whatever was flushed survives any death.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import sys
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Any

from memtrace.hooks.failure.tracebacks import is_own, strip_exception, strip_own_frames
from memtrace.hooks.failure.unraisable import UnraisableHook
from memtrace.schema.secret_arguments import masked_text, secret_values

OnException = Callable[[type[BaseException], BaseException, "TracebackType | None"], None]

MAX_FRAMES = 200
"""A stack longer than this (a recursion error) is cut in the middle."""
MAX_MESSAGE_CHARS = 10_000


def install(on_exception: OnException, on_exit: Callable[[], None]) -> Callable[[], None]:
    """Chain the exception hooks and register the exit callback; return the function that removes exactly these.

    `on_exception(type, value, traceback)` is called for an uncaught exception of any thread (`describe` names the
    thread), before the hook that was there prints it; `on_exit()` once, when the interpreter ends in order.
    """
    watch = _Watch(on_exception, on_exit)
    watch.install()
    return watch.uninstall


def describe(
    kind: type[BaseException], error: BaseException, tb: TracebackType | None, *, redact: bool = False
) -> dict[str, Any]:
    """Return type, message and stack (innermost first) of an exception, and its thread unless that is the main one.

    Redacted, files lose their folder, and the message is dropped, except for an out-of-memory error: its message holds
    sizes only.
    """
    name = f"{kind.__module__}.{kind.__qualname__}".removeprefix("builtins.")
    thread = threading.current_thread()
    message: str | None = _message(error)
    if redact and "OutOfMemory" not in kind.__name__:
        message = None
    return {
        "type": name,
        "message": message,
        "stack": _frames(tb, redact=redact),
        "thread": None if thread is threading.main_thread() else thread.name,
    }


class _Watch:
    """What was there before, and what was put in its place."""

    def __init__(self, on_exception: OnException, on_exit: Callable[[], None]) -> None:
        self._on_exception = on_exception
        self._on_exit = on_exit
        self._pid = os.getpid()
        self._seen: BaseException | None = None
        self._installed = False
        # Bound once: a bound method is a new object at each access, and removal compares by identity.
        self._main_hook = self._excepthook
        self._thread_hook = self._threading_excepthook
        self._exit_hook = self._at_exit
        self._unraisable = UnraisableHook()

    def install(self) -> None:
        self._before = sys.excepthook
        self._thread_before = threading.excepthook
        # Python's own as well, where it is the one: consoles ask whether it is, and programs put it back.
        if self._before is sys.__excepthook__:
            sys.__excepthook__ = self._main_hook
        if self._thread_before is threading.__excepthook__:
            threading.__excepthook__ = self._thread_hook
        sys.excepthook = self._main_hook
        threading.excepthook = self._thread_hook
        self._unraisable.install()
        atexit.register(self._exit_hook)
        self._installed = True

    def uninstall(self) -> None:
        """Undo `install`. A hook that someone chained onto ours since stays, and ours only passes on from now on."""
        if not self._installed:
            return
        self._installed = False
        atexit.unregister(self._exit_hook)
        self._unraisable.uninstall()
        if threading.excepthook is self._thread_hook:
            threading.excepthook = self._thread_before
        if sys.excepthook is self._main_hook:
            sys.excepthook = self._before
        if sys.__excepthook__ is self._main_hook:
            sys.__excepthook__ = self._before
        if threading.__excepthook__ is self._thread_hook:
            threading.__excepthook__ = self._thread_before
        self._seen = None

    def _excepthook(self, kind: type[BaseException], error: BaseException, tb: TracebackType | None) -> None:
        tb = _stripped(error, tb)
        self._note(kind, error, tb)
        self._before(kind, error, tb)

    def _threading_excepthook(self, args: Any) -> None:
        if args.exc_value is not None:
            tb = _stripped(args.exc_value, args.exc_traceback)
            args = threading.ExceptHookArgs((args.exc_type, args.exc_value, tb, args.thread))
            # A thread that ends by SystemExit ends in order.
            if not issubclass(args.exc_type, SystemExit):
                self._note(args.exc_type, args.exc_value, tb)
        self._thread_before(args)

    def _note(self, kind: type[BaseException], error: BaseException, tb: TracebackType | None) -> None:
        """Tell of an exception once; in a forked child it is none of ours."""
        if not self._installed or os.getpid() != self._pid or error is self._seen:
            return
        self._seen = error
        try:
            self._on_exception(kind, error, tb)
        except Exception:
            return

    def _at_exit(self) -> None:
        if not self._installed or os.getpid() != self._pid:
            return
        # Set by the interpreter even where the program replaced our hook by one that does not chain.
        error = getattr(sys, "last_value", None)
        if isinstance(error, BaseException) and not isinstance(error, SystemExit):
            self._note(type(error), error, getattr(sys, "last_traceback", None))
        with contextlib.suppress(Exception):
            self._on_exit()
        self._seen = None


def _stripped(error: BaseException, tb: TracebackType | None) -> TracebackType | None:
    """Return the traceback as a bare run would print it. Affects: those of the exception and of its causes too."""
    try:
        strip_exception(error)
        return strip_own_frames(tb)
    except Exception:
        return tb


def _message(error: BaseException) -> str:
    try:
        # Masked before it is cut: half a secret has no longer the look of one.
        known = secret_values(getattr(sys, "orig_argv", sys.argv) + sys.argv, os.environ)
        return masked_text(str(error)[: 2 * MAX_MESSAGE_CHARS], known)[:MAX_MESSAGE_CHARS]
    except Exception:
        return ""


def _frames(tb: TracebackType | None, *, redact: bool) -> list[dict[str, Any]]:
    """Return the frames of a traceback, innermost first, without memtrace's own."""
    frames: list[dict[str, Any]] = []
    while tb is not None:
        if not is_own(tb.tb_frame):
            code = tb.tb_frame.f_code
            file = os.path.basename(code.co_filename) if redact else code.co_filename
            frames.append({"file": file, "line": tb.tb_lineno or 0, "function": code.co_name})
        tb = tb.tb_next
    frames.reverse()
    if len(frames) > MAX_FRAMES:
        half = MAX_FRAMES // 2
        frames = frames[:half] + frames[-half:]
    return frames
