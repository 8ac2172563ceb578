"""Hooks of ours take no number of torch's: it counts them, and saves the numbers of a program's own with a module."""

from __future__ import annotations

from itertools import count
from typing import Any

_own_numbers = count(1)


def without_number(handle: Any) -> Any:
    """Return the handle of a hook that was registered just now, under a number that torch gives to none.

    The next hook of the program has the one then that it would have without us.
    """
    kind, number = type(handle), getattr(handle, "id", None)
    references = (getattr(handle, "hooks_dict_ref", _nothing), *getattr(handle, "extra_dict_ref", ()))
    tables = [reference() for reference in references]
    if number is None or None in tables or getattr(kind, "next_id", None) != number + 1:
        return handle
    handle.id = -next(_own_numbers)
    for table in tables:
        if number in table:
            table[handle.id] = table.pop(number)
    kind.next_id = number
    return handle


def _nothing() -> None:
    return None
