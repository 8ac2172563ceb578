"""The call that started a backward, for what a device makes in it.

Of a device, autograd's engine runs backward on a thread of its own, which has no Python: what it allocates has no
stack. The gradient of the loss is made before, by the program's own thread, in the call that starts it all.
"""

from __future__ import annotations

import numpy as np

from memtrace.analysis.device.device_history import DeviceHistory
from memtrace.store.columns import NULL, IntArray

_MAKES_THE_FIRST = "_make_grads"
"""The function of torch that makes the gradient of the loss."""


def stacks_of_backward(history: DeviceHistory, allocations: IntArray) -> IntArray:
    """Return for each allocation the stack of the call that started the backward it was made in; null for none."""
    found = np.full(len(allocations), NULL, np.int64)
    rank, lifetimes = history.rank, history.lifetimes
    frames = np.flatnonzero(rank.table("frames")["function"] == rank.string_id(_MAKES_THE_FIRST))
    stacks = np.flatnonzero(np.isin(rank.table("stacks")["frame"], frames))
    first = np.flatnonzero(np.isin(lifetimes.stack, stacks) & ~lifetimes.is_initial)
    if not len(first) or not history.moments.has_times:
        return found
    phases = _phases_of(history, first)
    # Of two calls in one phase, the first.
    started = dict(zip(phases[::-1].tolist(), lifetimes.stack[first][::-1].tolist(), strict=True))
    known = np.flatnonzero(~lifetimes.is_initial[allocations])
    for at, phase in zip(known.tolist(), _phases_of(history, allocations[known]).tolist(), strict=True):
        if phase >= 0:
            found[at] = started.get(phase, NULL)
    return found


def _phases_of(history: DeviceHistory, allocations: IntArray) -> IntArray:
    """Return the row of the innermost phase that each allocation was made in; -1 for none."""
    return history.phases.innermost(history.moments.time_ns[history.lifetimes.start[allocations]])
