"""Which allocations lived when: every alloc of a device's history paired with its frees, by one sort.

In: a rank's events and initial blocks, over the moments of one device. Out: `Lifetimes`, one row an allocation.

At one address events alternate (alloc, free_requested, free_completed), so after a stable sort by address an allocation
and its frees stand next to one another:

    sorted    A@1 R@1 C@1 A@1 | C@2 | A@3 C@3          A alloc   R free_requested   C free_completed
    becomes   [A R C] [A …lives] [before…C] [A C]

A block is in use until its free is requested, and pending until that is completed. At a gap everything that is still
open ends: the next epoch begins from its own initial blocks.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from memtrace.analysis.events.moments import Moments
from memtrace.schema.names import Action, BlockState
from memtrace.store.columns import NULL, IntArray
from memtrace.store.trace import RankTrace

_ALLOC, _REQUESTED, _COMPLETED = 1, 2, 3


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Lifetimes:
    """The allocations of one device, ordered by address, then by time."""

    address: IntArray
    size_bytes: IntArray
    """Requested bytes."""
    stack: IntArray
    """Row of stacks; null where it was not recorded."""
    start: IntArray
    """Moment from which it lives: that of its alloc, or the start of the epoch at which it was live already."""
    in_use_end: IntArray
    """First moment at which it is not in use any more (free requested); the number of moments if it never ends."""
    end: IntArray
    """First moment at which its block is free again; the number of moments if it never ends."""
    is_initial: npt.NDArray[np.bool_]
    """Whether it began before its epoch."""
    num_moments: int
    num_unpaired: int
    """Frees without an alloc, and allocs of a block that was live: events between them are missing."""
    has_free_requests: bool
    """Whether the history tells requested from completed frees."""

    def __len__(self) -> int:
        return len(self.address)

    def live_at(self, moment: int) -> IntArray:
        """Return the rows of the allocations in use at a moment."""
        return np.flatnonzero((self.start <= moment) & (self.in_use_end > moment))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Rows:
    """Allocs and frees in the order of time, then sorted by address."""

    kind: npt.NDArray[np.int8]
    address: IntArray
    moment: IntArray
    size_bytes: IntArray
    stack: IntArray
    initial: npt.NDArray[np.bool_]

    def take(self, order: IntArray) -> _Rows:
        """Return the rows in another order."""
        return _Rows(
            kind=self.kind[order],
            address=self.address[order],
            moment=self.moment[order],
            size_bytes=self.size_bytes[order],
            stack=self.stack[order],
            initial=self.initial[order],
        )


def build_lifetimes(rank: RankTrace, device: str, moments: Moments) -> Lifetimes:
    """Return the allocations of one device."""
    rows = _join(_initial_rows(rank, device, moments), _event_rows(rank, moments))
    if len(moments.epochs) > 1:
        rows = rows.take(np.argsort(rows.moment, kind="stable"))
    rows = rows.take(np.argsort(rows.address, kind="stable"))
    lifetimes = _pair(rows, moments)
    return _mark_pending(rank, device, lifetimes)


def _initial_rows(rank: RankTrace, device: str, moments: Moments) -> _Rows:
    """Return the blocks live at the start of each epoch as allocs at its first moment."""
    blocks = rank.table("initial_blocks")
    start_of_window = np.full(len(rank.table("windows")) + 1, NULL, np.int64)
    for epoch in moments.epochs:
        if epoch.windows:
            start_of_window[epoch.windows[0]] = epoch.start
    # The blocks of a window that continues the one before are known from that one already.
    start = start_of_window[np.clip(blocks["window"], 0, len(start_of_window) - 1)]
    chosen = np.flatnonzero((blocks["device"] == rank.string_id(device)) & (start != NULL))
    num = len(chosen)
    return _Rows(
        kind=np.full(num, _ALLOC, np.int8),
        address=blocks["address"][chosen],
        moment=start[chosen],
        size_bytes=blocks["size_bytes"][chosen],
        stack=blocks["stack"][chosen],
        initial=np.ones(num, np.bool_),
    )


def _event_rows(rank: RankTrace, moments: Moments) -> _Rows:
    """Return the allocs and frees of the history that have an address."""
    events = rank.table("events")
    kind_of: npt.NDArray[np.int8] = np.zeros(len(rank.strings) + 1, np.int8)
    for action, code in (
        (Action.ALLOC, _ALLOC),
        (Action.FREE_REQUESTED, _REQUESTED),
        (Action.FREE_COMPLETED, _COMPLETED),
    ):
        # Row -1 is the spare one at the end: an action that no event has.
        kind_of[rank.string_id(action.value)] = code
    kind_of[-1] = 0
    kind = kind_of[moments.action]
    address = events["address"][moments.rows]
    chosen = np.flatnonzero((kind > 0) & (address != NULL))
    rows = moments.rows[chosen]
    return _Rows(
        kind=kind[chosen],
        address=address[chosen],
        moment=moments.of_event[chosen],
        size_bytes=events["size_bytes"][rows],
        stack=events["stack"][rows],
        initial=np.zeros(len(chosen), np.bool_),
    )


def _join(first: _Rows, second: _Rows) -> _Rows:
    if not len(first.kind):
        return second
    return _Rows(
        kind=np.concatenate([first.kind, second.kind]),
        address=np.concatenate([first.address, second.address]),
        moment=np.concatenate([first.moment, second.moment]),
        size_bytes=np.concatenate([first.size_bytes, second.size_bytes]),
        stack=np.concatenate([first.stack, second.stack]),
        initial=np.concatenate([first.initial, second.initial]),
    )


def _pair(rows: _Rows, moments: Moments) -> Lifetimes:
    """Return the allocations that sorted rows make.

    Rows of one address stand below each other in time, so that the life of an allocation is its alloc and the two rows
    below it. In an epoch of 9 moments, of a device whose frees are requested first:

        row  address  kind       moment   first      second     start  in_use_end  end
        0    64       alloc      2        requested  completed  2      3           5
        1    64       requested  3
        2    64       completed  5
        3    64       alloc      6        -          -          6      9           9    lives on
        4    96       completed  4        completed  -          0      0           4    an orphan: older than it all
    """
    num_moments, kind = len(moments), rows.kind
    # Whether a row goes on with the address above it; what is at an address in another epoch is another allocation.
    epoch_end = _epoch_ends(rows.moment, moments)
    same = np.zeros(len(kind), np.bool_)
    same[1:] = (rows.address[1:] == rows.address[:-1]) & (epoch_end[1:] == epoch_end[:-1])
    # Two rows of nothing at the end: also below the last alloc the two rows that follow can be looked at.
    padded_kind = np.concatenate([kind, [0, 0]])
    padded_same = np.concatenate([same, [False, False]])
    padded_moment = np.concatenate([rows.moment, [0, 0]])
    # What happened at the address just before; `roll` brings the last row to the first, which `same` is false for.
    before = np.where(same, np.roll(kind, 1), 0).astype(np.int8)

    has_requests = bool(np.any(kind == _REQUESTED))
    is_alloc = kind == _ALLOC
    is_orphan = ~is_alloc & ~same
    begins = np.flatnonzero(is_alloc | is_orphan)
    orphan = is_orphan[begins]
    # For an orphan, its own row is the first thing that happens to it; for an alloc, the next row.
    first = begins + np.where(orphan, 0, 1)
    first_kind = np.where(orphan | padded_same[first], padded_kind[first], 0)
    second = first + 1
    second_kind = np.where((first_kind > 0) & padded_same[second], padded_kind[second], 0)
    # An alloc straight after an alloc is no free, and yet ends the first: two blocks cannot be at one address.
    open_end = epoch_end[begins]
    in_use_end = np.where(first_kind > 0, padded_moment[first], open_end)
    end_of_request = np.where(second_kind > 0, padded_moment[second], open_end)
    # Where frees are not requested first (on the CPU), being in use and being there end together.
    end = np.where(first_kind == _REQUESTED, end_of_request, in_use_end)

    initial = orphan | rows.initial[begins]
    starts = _epoch_starts(rows.moment[begins], moments)
    start = np.where(initial, starts, rows.moment[begins])
    if has_requests:
        # Completed without having been requested: that was before the history, so it was pending from the start.
        in_use_end = np.where(initial & (first_kind == _COMPLETED), start, in_use_end)
    return Lifetimes(
        address=rows.address[begins],
        size_bytes=rows.size_bytes[begins],
        stack=np.where(orphan, NULL, rows.stack[begins]),
        start=start,
        in_use_end=in_use_end,
        end=end,
        is_initial=initial,
        num_moments=num_moments,
        num_unpaired=_count_unpaired(kind, before),
        has_free_requests=has_requests,
    )


def _count_unpaired(kind: npt.NDArray[np.int8], before: npt.NDArray[np.int8]) -> int:
    """Return how many events cannot follow the one before them at the same address."""
    impossible = (
        ((kind == _ALLOC) & ((before == _ALLOC) | (before == _REQUESTED)))
        | ((kind == _REQUESTED) & ((before == _REQUESTED) | (before == _COMPLETED)))
        | ((kind == _COMPLETED) & (before == _COMPLETED))
    )
    return int(np.count_nonzero(impossible))


def _epoch_ends(moment: IntArray, moments: Moments) -> IntArray:
    """Return, for each moment, one past the last moment of its epoch."""
    stops = np.array([epoch.stop for epoch in moments.epochs], np.int64)
    if len(stops) == 1:
        return np.full(len(moment), stops[0], np.int64)
    ends: IntArray = stops[np.searchsorted(stops, moment, side="right")]
    return ends


def _epoch_starts(moment: IntArray, moments: Moments) -> IntArray:
    """Return, for each moment, the first moment of its epoch."""
    starts = moments.epoch_starts()
    found: IntArray = starts[np.searchsorted(starts, moment, side="right") - 1]
    return found


def _mark_pending(rank: RankTrace, device: str, lifetimes: Lifetimes) -> Lifetimes:
    """Return the allocations; those that only the final state tells to be pending are not in use from the start."""
    blocks, segments = rank.table("blocks"), rank.table("segments")
    pending = blocks["state"] == rank.string_id(BlockState.ACTIVE_PENDING_FREE.value)
    if not pending.any():
        return lifetimes
    pending &= segments["device"][blocks["segment"]] == rank.string_id(device)
    never_requested = lifetimes.is_initial & (lifetimes.in_use_end == lifetimes.num_moments)
    wrong = never_requested & np.isin(lifetimes.address, blocks["address"][pending])
    lifetimes.in_use_end[wrong] = lifetimes.start[wrong]
    return lifetimes
