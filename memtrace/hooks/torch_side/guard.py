"""The one wrapper around every hook callback: a failure of ours never reaches the user's program.

In: a function that torch or Python calls. Out: the same function, which does nothing while memtrace itself is at work
in the thread or torch compiles, records its errors as warnings, and is switched off after its third failure.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any

from memtrace.hooks.failure.meant_for_program import pass_on
from memtrace.hooks.torch_side.program_profilers import resume, suspend, this_thread

Unseen = Callable[[], AbstractContextManager[object]]

MAX_FAILURES = 3
"""A callback that failed this often is broken, not unlucky; calling on would only cost time."""

MAX_MESSAGE_CHARS = 300


class _ThreadState(threading.local):
    """Whether memtrace is at work in this thread."""

    active = False


class _Quiet:
    """Marks memtrace as at work in this thread for a `with` block; blocks may nest."""

    def __init__(self, state: _ThreadState, unseen: Unseen | None) -> None:
        self._state = state
        self._before = False
        self._unseen = None if unseen is None else unseen()

    def __enter__(self) -> None:
        self._before = self._state.active
        self._state.active = True
        if self._unseen is not None:
            self._unseen.__enter__()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if self._unseen is not None:
            self._unseen.__exit__(kind, error, tb)
        self._state.active = self._before


class Guard:
    """Wraps callbacks. `warn(slug, message)` is told once per kind of error.

    `is_compiling` is torch's own check, `is_symbolic` that of `symbolic.py`: while one says yes, callbacks do nothing.
    `unseen` makes a context in which modes and subclasses of the program see nothing of the tensors that are looked at.
    `hides` says whether a profile hook of Python is the program's: it sees nothing of callbacks then.
    """

    def __init__(
        self,
        warn: Callable[[str, str], None],
        is_compiling: Callable[[], bool],
        is_symbolic: Callable[[], bool] = lambda: False,
        unseen: Unseen | None = None,
        hides: Callable[[object], bool] = lambda _hook: True,
    ) -> None:
        self._warn = warn
        self._is_compiling = is_compiling
        self._is_symbolic = is_symbolic
        self._unseen = unseen
        self._hides = hides
        self._state = _ThreadState()
        self._warned: set[tuple[str, type[BaseException]]] = set()

    @property
    def active(self) -> bool:
        """Whether memtrace is at work in this thread, so that hooks stay silent."""
        return self._state.active

    def quiet(self) -> _Quiet:
        """Return a context in which no wrapped hook of this thread does anything, for torch calls of our own."""
        return _Quiet(self._state, self._unseen)

    def wrap(self, function: Callable[..., object], *, name: str) -> Callable[..., None]:
        """Return a callback that calls `function`, drops its result and never raises an `Exception`.

        What is meant for the program passes, wherever it strikes: `KeyboardInterrupt`, `SystemExit`, and what its
        handlers of signals raise.
        """
        state = self._state
        is_compiling, is_symbolic, unseen = self._is_compiling, self._is_symbolic, self._unseen
        profile_hook, hides = sys.getprofile, self._hides
        num_failures = 0

        def guarded(*args: Any, **kwargs: Any) -> None:
            nonlocal num_failures
            # First of all, for torch.compile: Dynamo folds this check to a constant and drops the rest, so that the
            # hook costs no graph break. Any other expression before it would be traced.
            if is_compiling():
                return
            if state.active or num_failures >= MAX_FAILURES:
                return
            state.active = True
            is_hidden = has_begun = False
            try:
                if (hook := profile_hook()) is not None:
                    suspend(this_thread())
                    is_hidden = True
                    if not hides(hook):
                        is_hidden = False
                        resume(this_thread())
                if is_symbolic():
                    return
                has_begun = True
                if unseen is None:
                    function(*args, **kwargs)
                else:
                    with unseen():
                        function(*args, **kwargs)
            except Exception as error:
                if not has_begun:
                    # The stack has no room for so much as a callback, nor for what it interrupts.
                    raise
                pass_on(error)
                num_failures += 1
                self.report(name, error, switched_off=num_failures >= MAX_FAILURES)
            finally:
                if is_hidden:
                    resume(this_thread())
                state.active = False

        return guarded

    def report(self, name: str, error: Exception, *, switched_off: bool = False) -> None:
        """Record an error of ours as a warning, once per callback and kind of error; never raises."""
        kind = (name, type(error))
        if kind in self._warned and not switched_off:
            return
        self._warned.add(kind)
        ending = "; it is switched off" if switched_off else ""
        try:
            self._warn("hook-failed", f"{name} failed: {_describe(error)}{ending}")
        except Exception:
            # Nothing is left to tell it to, and the user's program comes first.
            return


def _describe(error: Exception) -> str:
    """Return the type and message of an error; a message that cannot be made is left out."""
    try:
        text = str(error)
    except Exception:
        text = ""
    return f"{type(error).__name__}: {text[:MAX_MESSAGE_CHARS]}" if text else type(error).__name__
