"""Keyword arguments of a module call, which torch's global hooks do not pass on."""

from __future__ import annotations

import sys
from typing import Any

# Frames between a forward pre-hook of ours and torch's own frame that calls it.
_MAX_DEPTH = 8


def keyword_arguments(module: Any) -> dict[str, Any]:
    """Return the keyword arguments of the module call whose pre-hook is running, empty if they cannot be found.

    Models of some libraries are called with keywords alone, `model(**batch)`, and their inputs are found nowhere else.
    """
    frame = sys._getframe(1)
    for _ in range(_MAX_DEPTH):
        if frame is None or frame.f_back is None:
            return {}
        frame = frame.f_back
        if frame.f_code.co_name in ("_call_impl", "inner"):
            values = frame.f_locals
            found = values.get("kwargs")
            if values.get("self", module) is module and isinstance(found, dict):
                return found
    return {}
