"""Room for the frames that module hooks add to the stack, so that what runs deep in nested modules does not fail.

As soon as there is any module hook, torch takes one frame more for each call of a module (`_call_impl` → `inner` →
`forward`). A model that recurses, over the tree of a sentence, would hit Python's limit a quarter earlier.
"""

from __future__ import annotations

import sys
import threading

_FROM_DEPTH = 16
"""Modules that run inside each other; below, the frames of ours do not matter."""
_ENTRY_FRAMES = 8
"""What a hook takes before it can make room, and what of it is there while the module runs."""
_HOOK_FRAMES = 100


class RecursionRoom:
    """Raises the limit by what the hooks of one thread take, and lowers it again if the program has set no other."""

    def __init__(self) -> None:
        self._thread = threading.get_ident()
        self._bare: int | None = None
        """The limit that the program set, while it is raised."""
        self._raised = 0

    def for_hook(self, depth: int) -> None:
        """Make room for a hook of a module that runs in so many others."""
        if depth >= _FROM_DEPTH or self._bare is not None:
            self._set(depth + _HOOK_FRAMES)

    def for_modules(self, depth: int, *, frames_each: int) -> None:
        """Leave room for so many frames of each of so many modules that run inside each other."""
        if self._bare is None:
            return
        if depth >= _FROM_DEPTH:
            self._set(depth * frames_each + _ENTRY_FRAMES)
        elif threading.get_ident() == self._thread:
            if sys.getrecursionlimit() == self._raised:
                sys.setrecursionlimit(self._bare)
            self._bare = None

    def _set(self, more: int) -> None:
        if threading.get_ident() != self._thread:
            return
        now = sys.getrecursionlimit()
        if self._bare is None or now != self._raised:
            self._bare = now
        self._raised = self._bare + more
        sys.setrecursionlimit(self._raised)
