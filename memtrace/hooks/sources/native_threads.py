"""Threads that torch's libraries start because of a recording, which a bare program would not have.

The system gives a signal of the process to any thread that does not block it. A program that blocks one in its threads,
to wait for it at a place of its own, would be ended by it in a thread that it knows nothing of. So such a thread is
started with every signal blocked, which it inherits.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager

# Beneath Python's own function, which makes a name of each signal: some 30 µs a call.
_set_mask = getattr(sys.modules.get("_signal"), "pthread_sigmask", None)
_ALL = signal.valid_signals()


@contextmanager
def hearing_no_signals() -> Iterator[None]:
    """Block every signal in the calling thread meanwhile; those that come are handled afterwards."""
    if _set_mask is None:
        yield
        return
    before = _set_mask(signal.SIG_BLOCK, _ALL)
    try:
        yield
    finally:
        _set_mask(signal.SIG_SETMASK, before)
