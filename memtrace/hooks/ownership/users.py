"""Which threads use what is looked at: models and optimizers that another thread is at work with are left alone.

A backward pass writes gradients without the GIL. Who reads one that another thread just replaces, or drops, reads what
is no tensor any more, and ends the program by a fault.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

_RECENT = 2
"""A use by another thread counts up to so many looks later, though the calling one used the same since."""


class _Use(NamedTuple):
    """The last use of something by a thread."""

    at: int
    """Number of the use among all."""
    look: int
    """Looks there had been by then."""


class Users:
    """Remembers, of models and optimizers, when each thread used them last."""

    def __init__(self, busy_threads: Callable[[], frozenset[int]]) -> None:
        """`busy_threads` says which threads but the calling one may be at work with tensors now."""
        self._busy_threads = busy_threads
        self._threads: set[int] = set()
        self._uses: dict[int, dict[int, _Use]] = {}
        self._num_uses = self._num_looks = 0

    def used(self, thing: Any) -> None:
        """Note that the calling thread uses something, or has made it."""
        thread = threading.get_ident()
        self._threads.add(thread)
        self._num_uses += 1
        self._uses.setdefault(id(thing), {})[thread] = _Use(self._num_uses, self._num_looks)

    def look(self, *groups: Iterable[Any]) -> list[list[Any]]:
        """Return of each group what no other thread is at work with. The groups are all there is that may be used."""
        self._num_looks += 1
        groups = tuple(map(list, groups))
        alive = {id(one) for group in groups for one in group}
        # Or what is made at the address of something that is gone would have its uses.
        self._uses = {key: uses for key, uses in self._uses.items() if key in alive}
        busy = self._busy_threads() if len(self._threads) > 1 else frozenset()
        return [[one for one in group if not busy or not self._is_in_use(id(one), busy)] for group in groups]

    def _is_in_use(self, thing: int, busy: frozenset[int]) -> bool:
        uses = self._uses.get(thing, {})
        own = uses.get(threading.get_ident(), _Use(0, 0))
        return any(
            use.at > own.at or use.look >= self._num_looks - _RECENT for thread, use in uses.items() if thread in busy
        )
