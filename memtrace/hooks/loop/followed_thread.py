"""The thread whose loop is followed, and whether it has ended."""

from __future__ import annotations

import threading
import weakref


class FollowedThread:
    """The thread that makes it."""

    def __init__(self) -> None:
        """Note the calling thread, without making it known to `threading` where it is not."""
        self._ident = threading.get_ident()
        known = next((one for one in threading.enumerate() if one.ident == self._ident), None)
        # Of the main thread Python says that it has ended as soon as others are waited for, before exit handlers run.
        is_main = known is threading.main_thread()
        self._thread = None if known is None or is_main else weakref.ref(known)

    @property
    def is_current(self) -> bool:
        """Whether the calling thread is it."""
        # A number is given again once its thread has ended.
        return threading.get_ident() == self._ident and not self.has_ended

    @property
    def has_ended(self) -> bool:
        """Whether it has ended; the main thread, and one that Python did not start, never has."""
        if self._thread is None:
            return False
        thread = self._thread()
        return thread is None or not thread.is_alive()
