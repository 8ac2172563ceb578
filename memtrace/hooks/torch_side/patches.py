"""The few calls of torch that are wrapped where it offers no hook. Undone exactly, in reverse order."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

Callback = Callable[..., None]


class Patches:
    """Attributes that were replaced, and what was there before."""

    def __init__(self) -> None:
        self._undo: list[tuple[Any, str, Any, Any]] = []

    def around(self, owner: Any, name: str, *, before: Callback | None = None, after: Callback | None = None) -> None:
        """Wrap a function or method: `before(*args, **kwargs)`, the call, then `after(*args, **kwargs)` in any case.

        The callbacks must be guarded already: they neither raise nor return anything. Nothing happens if the owner has
        no such attribute.
        """
        original = getattr(owner, name, None)
        if original is None:
            return

        @functools.wraps(original)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            if before is not None:
                before(*args, **kwargs)
            try:
                return original(*args, **kwargs)
            finally:
                if after is not None:
                    after(*args, **kwargs)

        self.replace(owner, name, wrapper)

    def replace(self, owner: Any, name: str, replacement: Any) -> None:
        """Put something in the place of an attribute."""
        own = vars(owner).get(name, _MISSING)
        setattr(owner, name, replacement)
        self._undo.append((owner, name, own, replacement))

    def undo(self) -> None:
        """Restore every attribute that still holds what was put there; one that the user changed since is theirs."""
        while self._undo:
            owner, name, own, replacement = self._undo.pop()
            if vars(owner).get(name) is not replacement:
                continue
            if own is _MISSING:
                delattr(owner, name)
            else:
                setattr(owner, name, own)


_MISSING = object()
