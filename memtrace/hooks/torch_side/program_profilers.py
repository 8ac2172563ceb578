"""Profilers of Python that the program runs, as torch's with stacks and `cProfile`: they need not see what we do.

A thousand calls of ours a step would be most of what they show. Python can suspend them in a thread, and does so itself
while one of their own callbacks runs. Nothing that they are told of may begin before and end after it, so whoever does
it calls these functions of Python's C side itself: `suspend(this_thread())`, and in the same frame
`resume(this_thread())`.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

Switch = Callable[[Any], object]

this_thread = ctypes.pythonapi.PyThreadState_Get
this_thread.restype = ctypes.c_void_p


def _switch(name: str) -> Switch:
    found: Any = getattr(ctypes.pythonapi, name, None)
    if found is None:
        # Before Python 3.11.
        return id
    found.argtypes, found.restype = [ctypes.c_void_p], None
    return found  # type: ignore[no-any-return]


suspend = _switch("PyThreadState_EnterTracing")
resume = _switch("PyThreadState_LeaveTracing")


def is_of_python(hook: object) -> bool:
    """Return whether a profile hook is a function, or one of cProfile: torch's, and ours, stand for C++ alone."""
    return callable(hook) or hasattr(hook, "enable")
