"""Exceptions that Python would drop because a callback of ours was being called when they came up.

The collector, weak references and forks call back from where nothing can be raised: what comes up there is printed as
ignored. A time limit that strikes at the first instruction of such a callback, or Ctrl-C, would be lost with it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from memtrace.hooks.failure.meant_for_program import pass_on, raise_afterwards
from memtrace.hooks.failure.tracebacks import is_own_code


class UnraisableHook:
    """Python's hook for them, chained: what is meant for the program comes up in it, and what is ours is silent."""

    def __init__(self) -> None:
        self._before: Callable[[Any], Any] = sys.unraisablehook
        # Bound once: removal compares by identity.
        self._hook = self._called

    def install(self) -> None:
        """Put it before the hook that is there."""
        self._before = sys.unraisablehook
        # Python's own as well, where it is the one: programs put it back.
        if self._before is sys.__unraisablehook__:
            sys.__unraisablehook__ = self._hook
        sys.unraisablehook = self._hook

    def uninstall(self) -> None:
        """Take it out, unless someone has chained another onto it since: it only passes on then."""
        if sys.unraisablehook is self._hook:
            sys.unraisablehook = self._before
        if sys.__unraisablehook__ is self._hook:
            sys.__unraisablehook__ = self._before

    def _called(self, unraisable: Any) -> None:
        error = unraisable.exc_value
        if error is None or not is_own_code(unraisable.object):
            self._before(unraisable)
        elif is_meant_for_program(error):
            raise_afterwards(error)


def is_meant_for_program(error: BaseException) -> bool:
    """Return whether an exception that came up in a callback of ours has to arrive in the program."""
    if not isinstance(error, Exception):
        return True
    try:
        pass_on(error)
    except BaseException:
        return True
    return False
