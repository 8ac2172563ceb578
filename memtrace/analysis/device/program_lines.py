"""Where in the program memory was asked for: the program's own innermost line, and the module that was running.

In: allocations of a device. Out: a `where` of a `Finding`, and how many bytes each place asked for.
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np

from memtrace.analysis.device.backward_calls import stacks_of_backward
from memtrace.analysis.device.device_history import DeviceHistory
from memtrace.analysis.device.marks import modules_of
from memtrace.analysis.device.stacks import frames_of
from memtrace.schema.frames import own_frames
from memtrace.store.columns import NULL, IntArray

_FRAME = re.compile(r"(?P<file>.*):(?P<line>\d+) (?P<function>.*)")


def place_of(history: DeviceHistory, allocations: IntArray) -> dict[str, Any] | None:
    """Return file, line, function and module of the place that asked for most of the bytes of some allocations.

    The line is the innermost one of the program's own code; of what has no stack, since a device's backward made it,
    that of the call that started the backward. A part that was not recorded is `None`; so is the whole where nothing at
    all is known.
    """
    sizes = history.lifetimes.size_bytes[allocations]
    stack = _largest(history.lifetimes.stack[allocations], sizes)
    if stack is None:
        stack = _largest(stacks_of_backward(history, allocations), sizes)
    module = _largest(modules_of(history, allocations), sizes)
    return place_of_stack(history, stack, None if module is None else history.rank.text(module))


def place_of_stack(history: DeviceHistory, stack: int | None, module: str | None) -> dict[str, Any] | None:
    """Return the place that one stack and module name; `None` where nothing at all is known."""
    frames = [] if stack is None else own_frames(frames_of(history.rank, stack))
    match = _FRAME.fullmatch(frames[0]) if frames else None
    if match is None and module is None:
        return None
    return {
        "file": None if match is None else match["file"],
        "line": None if match is None else int(match["line"]),
        "function": None if match is None else match["function"],
        "module": module,
    }


def _largest(values: IntArray, sizes: IntArray) -> int | None:
    """Return the value with the most bytes, the smaller of equals; `None` if all are null."""
    known = values != NULL
    if not known.any():
        return None
    distinct, code = np.unique(values[known], return_inverse=True)
    totals = np.zeros(len(distinct), np.int64)
    np.add.at(totals, code, sizes[known])
    return int(distinct[np.argmax(totals)])
