"""The few calls of torch that are followed where it offers no hook. Undone exactly, in reverse order.

Callbacks are woven into the function itself (`weaving.py`). Built-in functions are wrapped, and those whose source is
not there.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from typing import Any

from memtrace.hooks.torch_side.weaving import Woven, weave
from memtrace.schema.frames import WRAPPER_FILE

Callback = Callable[..., None]


_followed: dict[tuple[int, str], tuple[Callback | None, Callback | None]] = {}
"""What is called around each function, by the identity of its owner and its name."""


def callbacks_around(owner: Any, name: str) -> tuple[Callback | None, Callback | None]:
    """Return what is called before and after a function now."""
    return _followed.get((id(owner), name), (None, None))


class Patches:
    """Attributes that were replaced, and what was there before."""

    def __init__(self) -> None:
        self._keys: list[tuple[int, str]] = []
        self._undo: list[tuple[Any, str, Any, Any]] = []
        self._woven: list[Woven] = []

    def around(
        self,
        owner: Any,
        name: str,
        *,
        before: Callback | None = None,
        after: Callback | None = None,
        is_wrapped: bool = False,
    ) -> None:
        """Follow a function or method: `before(*args, **kwargs)`, the call, then `after(*args, **kwargs)` in any case.

        The callbacks must be guarded already: they neither raise nor return anything. Nothing happens if the owner has
        no such attribute. With `is_wrapped`, nothing is woven: who took the function before is not followed, and
        `after` is called once the function has let go of its own variables.
        """
        original = None if owner is None else getattr(owner, name, None)
        if original is None:
            return
        is_own = vars(owner).get(name) is original
        woven = weave(original, before, after) if is_own and not is_wrapped else None
        if woven is not None:
            woven.put_in()
            self._woven.append(woven)
        else:
            self._wrap(owner, name, original, before, after)
        self._keys.append((id(owner), name))
        _followed[self._keys[-1]] = before, after

    def _wrap(self, owner: Any, name: str, original: Any, before: Callback | None, after: Callback | None) -> None:
        @functools.wraps(original)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            if before is not None:
                before(*args, **kwargs)
            try:
                return original(*args, **kwargs)
            except BaseException as error:
                forget_frame(error)
                raise
            finally:
                if after is not None:
                    after(*args, **kwargs)

        hide_from_warnings(wrapper)
        self.replace(owner, name, wrapper)
        stand_for_builtin(original, wrapper)

    def replace(self, owner: Any, name: str, replacement: Any) -> None:
        """Put something in the place of an attribute."""
        own = vars(owner).get(name, _MISSING)
        setattr(owner, name, replacement)
        self._undo.append((owner, name, own, replacement))

    def undo(self) -> None:
        """Restore every attribute that still holds what was put there; one that the user changed since is theirs."""
        while self._keys:
            _followed.pop(self._keys.pop(), None)
        while self._woven:
            self._woven.pop().take_out()
        while self._undo:
            owner, name, own, replacement = self._undo.pop()
            if vars(owner).get(name) is not replacement:
                continue
            if own is _MISSING:
                delattr(owner, name)
            else:
                setattr(owner, name, own)


def forget_frame(error: BaseException) -> None:
    """Leave the frame that has just caught an exception out of its traceback; a bare `raise` adds it no more.

    What the program prints or sends of an exception that it catches is then what it would be without memtrace.
    """
    if error.__traceback__ is not None:
        error.__traceback__ = error.__traceback__.tb_next


def hide_from_warnings(wrapper: Any) -> None:
    """Let `warnings.warn(…, stacklevel=…)` count as if the frame of a wrapper were not there.

    Python does not count frames of its import system, which it knows by words in the name of their file.
    """
    wrapper.__code__ = wrapper.__code__.replace(co_filename=WRAPPER_FILE)


def stand_for_builtin(original: Any, wrapper: Any) -> None:
    """Let TorchScript take a wrapper for the built-in that it wraps, which it knows by the identity of the function.

    What is added stays, and the wrapper with it: its identity must not become another function's.
    """
    module: Any = sys.modules.get("torch.jit._builtins")
    operators = getattr(module, "_builtin_ops", None)
    name = next((name for function, name in operators or () if function is original), None)
    if operators is None or name is None:
        return
    operators.append((wrapper, name))
    # The list becomes a table at its first use.
    if (table := getattr(module, "_builtin_table", None)) is not None:
        table[id(wrapper)] = name


_MISSING = object()
