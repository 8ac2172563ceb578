"""Which GPU of its machine a predicted process used: a rank beside the first uses another than the first.

In: the trace of the process. Out: its name, as in the trace.
"""

from __future__ import annotations

import re

import numpy as np

from memtrace.schema.names import Action
from memtrace.store.trace import RankTrace

_GPU = re.compile(r"cuda:\d+")


def device_of(rank: RankTrace) -> str | None:
    """Return the GPU that a process used; of several the one whose largest bytes are most; `None` if it used none."""
    events = rank.table("events")
    named = {at: text for at, text in enumerate(rank.strings) if _GPU.fullmatch(text)}
    used = [number for number in np.unique(events["device"]).tolist() if number in named]
    if len(used) > 1:
        used = [max(used, key=lambda number: _largest(rank, number))]
    return named[used[0]] if used else None


def _largest(rank: RankTrace, device: int) -> int:
    """Return the most bytes that were asked for and not given back on a device."""
    events = rank.table("events")
    alloc, free = (rank.string_id(one.value) for one in (Action.ALLOC, Action.FREE_COMPLETED))
    on_it, actions = events["device"] == device, events["action"]
    signs = np.select([on_it & (actions == alloc), on_it & (actions == free)], [1, -1], 0)
    return int(np.cumsum(signs * events["size_bytes"]).max(initial=0))
