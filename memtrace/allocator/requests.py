"""The requests of a recording, free of addresses: what a program asked for and gave back, in order.

In: a rank and a device. Out: `Requests`, which any allocator can be given, whatever its settings.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from memtrace.allocator.history import ALLOC, FREE_COMPLETED, FREE_REQUESTED, OOM, SEGMENT_MAP, SEGMENT_UNMAP, History
from memtrace.allocator.initial import Initial
from memtrace.allocator.results import IntArray
from memtrace.store.columns import NULL
from memtrace.store.trace import RankTrace

TAKE, GIVE, COMPLETE, FLUSH = range(4)
"""Kinds of `Requests.kind`: a request; its free asked for; its free completed; the cache emptied."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Requests:
    """Requests by number: first those that were in use before the history, by address, then each alloc in order."""

    size: IntArray
    """Bytes asked for."""
    stream: IntArray
    row: IntArray
    """Row of the events table of the alloc (of the one it repeats); -1 for those that were in use before."""
    address: IntArray
    """Where it was recorded, by which others may know it."""
    is_pending: IntArray
    """Of those in use before the history, whether their free had been asked for."""
    num_initial: int
    kind: list[int]
    """What happens, in order."""
    number: list[int]
    """To which request; at a flush the row of the event."""
    event: list[int]
    """At which row of the events table."""


def read_requests(rank: RankTrace, history: History, initial: Initial | None) -> Requests:
    """Return the requests of a history; initial blocks come from the replay's initial state, else from the trace."""
    before = _from_state(initial) if initial is not None else _from_trace(rank, history)
    action, is_alloc = history.action, history.action == ALLOC
    num_initial = len(before)
    current = {int(address): number for number, (address, *_) in enumerate(before)}
    kinds: list[int] = []
    numbers: list[int] = []
    events: list[int] = []
    has_requests = bool(np.any(action == FREE_REQUESTED))
    next_number, in_run = num_initial, False
    rows = history.rows.tolist()
    for at, (code, address) in enumerate(zip(action.tolist(), history.address.tolist(), strict=True)):
        gives_back = SEGMENT_MAP < code <= SEGMENT_UNMAP
        if code == ALLOC:
            current[address] = next_number
            kinds.append(TAKE)
            numbers.append(next_number)
            next_number += 1
        elif code in (FREE_REQUESTED, FREE_COMPLETED) and address in current:
            if code == FREE_REQUESTED or not has_requests:
                kinds.append(GIVE)
                numbers.append(current[address])
            if code == FREE_COMPLETED:
                kinds.append(COMPLETE)
                numbers.append(current.pop(address))
        elif gives_back and not in_run and not _ends_in_oom(history, at):
            kinds.append(FLUSH)
            numbers.append(rows[at])
        # A free without a request is two entries, and most events of segments are none.
        events.extend([rows[at]] * (len(kinds) - len(events)))
        in_run = gives_back
    columns = np.array(before, np.int64).reshape(-1, 4)
    return Requests(
        size=np.concatenate([columns[:, 1], history.size[is_alloc]]),
        stream=np.concatenate([columns[:, 2], history.stream[is_alloc]]),
        row=np.concatenate([np.full(num_initial, -1, np.int64), history.rows[is_alloc]]),
        address=np.concatenate([columns[:, 0], history.address[is_alloc]]),
        is_pending=columns[:, 3],
        num_initial=num_initial,
        kind=kinds,
        number=numbers,
        event=events,
    )


def _from_state(initial: Initial) -> list[tuple[int, int, int, int]]:
    return [
        (block.address, block.requested, segment.stream, int(block.is_pending))
        for segment, used in zip(initial.segments, initial.blocks, strict=True)
        for block in used
    ]


def _from_trace(rank: RankTrace, history: History) -> list[tuple[int, int, int, int]]:
    """Return the blocks that the trace says were live when the window of the first event began."""
    blocks, windows = rank.table("initial_blocks"), rank.table("windows")
    if not len(history.rows) or not len(windows):
        return []
    starts = windows["first_event"]
    window = int(np.searchsorted(starts, history.rows[0], side="right")) - 1
    chosen = (blocks["window"] == window) & (blocks["device"] == rank.string_id(history.device))
    chosen &= blocks["address"] != NULL
    return sorted(
        (int(address), int(size), 0, 0)
        for address, size in zip(blocks["address"][chosen], blocks["size_bytes"][chosen], strict=True)
    )


def _ends_in_oom(history: History, start: int) -> bool:
    """Return whether a run of events that give memory back was the flush of a request that failed all the same."""
    at = start
    while at < len(history.action) and SEGMENT_MAP < history.action[at] <= SEGMENT_UNMAP:
        at += 1
    return at < len(history.action) and bool(history.action[at] == OOM)
