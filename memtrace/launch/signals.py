"""Waiting for a child while passing on the signals that were meant for it, each once.

A signal sent to the launcher alone must reach the child; one sent to the whole process group (Ctrl-C at a terminal,
`timeout`, a batch system) has reached it already, and a second SIGINT would interrupt its clean-up. The kernel does not
say which it was, so a sentinel, a process in the same group that does nothing else, reports what it receives.
"""

from __future__ import annotations

import contextlib
import os
import resource
import select
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from typing import NoReturn

_FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)
_SENTINEL_WAIT_S = 0.25
"""How long a signal to the group may take to show at the sentinel, and by how much it may have come earlier."""
_ORPHAN_CHECK_S = 1.0
_CHECK_S = 1.0
_REPORT = struct.Struct("=Bd")
"""Signal number and monotonic time."""


def run_and_forward(
    start: Callable[[Callable[[], None]], subprocess.Popen[bytes]], *, meanwhile: Callable[[], None] | None = None
) -> int:
    """Start a child, wait for its end, and return its exit status; negative is the signal that ended it.

    `start` is given the function that a child must call before its exec: it restores the signal mask. Signals that this
    process was told to ignore (`nohup`, background jobs) stay ignored, by the child as well. `meanwhile` is called
    about once a second as long as the child runs, in this thread: a second one would not survive a fork.
    """
    forwarded = {one for one in _FORWARDED if signal.getsignal(one) is not signal.SIG_IGN}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, forwarded | {signal.SIGCHLD})
    sentinel = _Sentinel(forwarded)
    try:
        child = start(lambda: _set_mask(before))
        while child.poll() is None:
            # With a limit in any case: another thread of this process may have been given the signal of the end.
            received = signal.sigtimedwait(forwarded | {signal.SIGCHLD}, _CHECK_S)
            if received is None:
                if meanwhile is not None:
                    meanwhile()
            elif received.si_signo != signal.SIGCHLD and not sentinel.also_received(received.si_signo):
                with contextlib.suppress(ProcessLookupError):
                    child.send_signal(received.si_signo)
        return child.returncode
    finally:
        sentinel.stop()
        # What still waits was meant for the program that has ended: unblocked, it would end the assembly.
        while signal.sigtimedwait(forwarded, 0) is not None:
            pass
        _set_mask(before)


def end_like(status: int) -> NoReturn:
    """End this process as the child ended, by its exit code or the same signal, so that a shell sees no change."""
    if status < 0:
        number = -status
        sys.stdout.flush()
        sys.stderr.flush()
        # The child left its core dump already.
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
        with contextlib.suppress(ValueError, OSError):
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {number})
        os.kill(os.getpid(), number)
        status = 128 + number
    sys.exit(status)


class _Sentinel:
    """A forked process that reports the signals which the process group receives."""

    def __init__(self, watched: set[signal.Signals]) -> None:
        self._reports, write_end = os.pipe()
        self._pid = os.fork()
        if self._pid == 0:
            _report_signals(watched, write_end, parent=os.getppid())
        os.close(write_end)

    def also_received(self, number: int) -> bool:
        """Return whether a signal that has just come was sent to the whole group."""
        now = time.monotonic()
        while (left := now + _SENTINEL_WAIT_S - time.monotonic()) > 0:
            if not select.select([self._reports], [], [], left)[0]:
                return False
            report = os.read(self._reports, _REPORT.size)
            if len(report) < _REPORT.size:
                return False
            seen, moment = _REPORT.unpack(report)
            # Older reports are of signals that were dealt with: several of a kind may come to this process as one.
            if seen == number and moment > now - _SENTINEL_WAIT_S:
                return True
        return False

    def stop(self) -> None:
        """End the sentinel."""
        os.close(self._reports)
        with contextlib.suppress(OSError):
            os.kill(self._pid, signal.SIGKILL)
            os.waitpid(self._pid, 0)


def _report_signals(watched: set[signal.Signals], write_end: int, *, parent: int) -> NoReturn:
    """Run the sentinel: report until the launcher is gone. It holds no file open that someone waits to see closed."""
    try:
        highest = min(resource.getrlimit(resource.RLIMIT_NOFILE)[0], 65536)
        os.closerange(0, write_end)
        os.closerange(write_end + 1, highest)
        while os.getppid() == parent:
            received = signal.sigtimedwait(watched, _ORPHAN_CHECK_S)
            if received is not None:
                os.write(write_end, _REPORT.pack(received.si_signo, time.monotonic()))
    finally:
        os._exit(0)


def _set_mask(mask: set[int] | set[signal.Signals]) -> None:
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)
