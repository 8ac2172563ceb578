"""Calls of torch whose warnings nobody gets to see, wherever in the program they are made.

A warning of torch's C++ side goes to its log; inside a call from Python, as where a collection of garbage starts in the
middle of an operator, torch keeps it and makes a Python warning of it at the end of that call. With `-W error` that
would be an exception of the program's own operator.
"""

from __future__ import annotations

import ctypes
import warnings
from collections.abc import Callable
from typing import Any


class Muffled:
    """Makes calls inside a call of torch of our own, so that what they warn of comes out of that one."""

    def __init__(self, torch: Any) -> None:
        # The plainest call that calls back: once for each element.
        one = torch.zeros(1)
        self._call_back = one.apply_
        # Programs look for tensors among the objects that the collector knows, and this is none of theirs. It refers
        # to nothing, so that the collector need not know it.
        ctypes.pythonapi.PyObject_GC_UnTrack(ctypes.py_object(one))

    def call(self, function: Callable[[], Any]) -> Any:
        """Return what a function returns. Its warnings are neither shown nor raised."""
        results: list[Any] = []

        def inside(_element: float) -> float:
            results.append(function())
            return 0.0

        module: Any = warnings
        # Not by filters: changing them would let each warning of the program be shown once more.
        shown = module._showwarnmsg
        module._showwarnmsg = _show_nothing
        try:
            self._call_back(inside)
        except Warning:
            if not results:
                raise
        finally:
            module._showwarnmsg = shown
        return results[0]


def _show_nothing(_message: object) -> None:
    return None
