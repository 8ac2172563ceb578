"""What a recording tells of one device, in the form in which the model takes it: plain lists of events.

In: the tables of a rank. Out: `History`, the events after the last gap, the final segments, and why it may not do.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from memtrace.allocator.settings import Settings
from memtrace.allocator.sizes import SMALL_SEGMENT
from memtrace.schema.names import DEFAULT_POOL, Action
from memtrace.schema.names import BlockState as BlockName
from memtrace.store.columns import NULL, IntArray
from memtrace.store.trace import RankTrace

ALLOC, FREE_REQUESTED, FREE_COMPLETED, SEGMENT_ALLOC, SEGMENT_MAP, SEGMENT_FREE, SEGMENT_UNMAP, OOM, OTHER = range(9)
ON_CPU = "The CPU has no caching allocator."
NO_SEGMENTS = "The recording holds no segments, so that its addresses cannot be predicted."
_CODES = {
    Action.ALLOC: ALLOC,
    Action.FREE_REQUESTED: FREE_REQUESTED,
    Action.FREE_COMPLETED: FREE_COMPLETED,
    Action.SEGMENT_ALLOC: SEGMENT_ALLOC,
    Action.SEGMENT_MAP: SEGMENT_MAP,
    Action.SEGMENT_FREE: SEGMENT_FREE,
    Action.SEGMENT_UNMAP: SEGMENT_UNMAP,
    Action.OOM: OOM,
}


@dataclass(slots=True, kw_only=True)
class Segment:
    """A segment, or a mapped range of an expandable one. Bytes."""

    address: int
    size: int
    stream: int
    is_small: bool
    pool_id: str
    is_expandable: bool

    @property
    def end(self) -> int:
        """The address behind it."""
        return self.address + self.size


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FinalBlocks:
    """Blocks that were in use when the final snapshot was taken, by address."""

    address: IntArray
    size: IntArray
    requested: IntArray
    is_pending: IntArray


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class History:
    """The events of one device after the last gap, and the segments at their end."""

    device: str
    rows: IntArray
    """Rows of the events table."""
    action: IntArray
    """Codes of this module."""
    address: IntArray
    size: IntArray
    stream: IntArray
    segments: tuple[Segment, ...]
    """Segments at the end, by address."""
    blocks: FinalBlocks
    pool_ids: list[str | None] | None
    """For each event the private pool that it is of, `None` for the default pool; `None` if there are none."""
    problem: str | None
    """Why it cannot be replayed; one sentence."""
    note: str | None
    """What part of the recording is not in it; one sentence."""


def read_history(rank: RankTrace, device: str) -> History:
    """Return what a rank tells of a device."""
    events, device_id = rank.table("events"), rank.string_id(device)
    windows = rank.table("windows")
    first, lost, is_cut = _last_epoch(rank, device_id)
    rows = np.flatnonzero((events["device"] == device_id) & (np.arange(len(events)) >= first))
    segments, blocks = _final(rank, device_id)
    action = np.full(len(rows), OTHER, np.int64)
    for name, code in _CODES.items():
        action[events["action"][rows] == rank.string_id(name.value)] = code
    address = events["address"][rows]
    without = (address == NULL) & (action <= SEGMENT_UNMAP)
    problem = None
    if not np.any(action == ALLOC) or not len(windows):
        problem = "There is no history of allocations."
    elif without.any():
        problem = "Events without an address cannot be replayed."
    elif device == "cpu":
        problem = ON_CPU
    elif not segments and not np.any((action >= SEGMENT_ALLOC) & (action <= SEGMENT_UNMAP)):
        problem = NO_SEGMENTS
    elif lost:
        problem = "Events were lost inside the history, so that the allocator's state is not known."
    history = History(
        device=device,
        rows=rows,
        action=action,
        address=address,
        size=events["size_bytes"][rows],
        stream=events["stream"][rows],
        segments=segments,
        blocks=blocks,
        pool_ids=_pool_ids(segments, action, address),
        problem=problem,
        note="Only the events after the last gap are replayed." if is_cut else None,
    )
    return history


def _pool_ids(segments: tuple[Segment, ...], action: IntArray, address: IntArray) -> list[str | None] | None:
    """Return for each event its private pool, by the segment that its address lies in; `None` if there is none.

    Which pool a request goes to is an input of the model, and torch before 2.12 wrote it down only with the segment.
    The driver gives addresses again: what happened at them before the segment was made is of another.
    """
    if all(segment.pool_id == DEFAULT_POOL for segment in segments):
        return None
    starts = np.array([segment.address for segment in segments], np.int64)
    ends = np.array([segment.end for segment in segments], np.int64)
    at = np.searchsorted(starts, address, side="right") - 1
    lies_in = (at >= 0) & (address < ends[at])
    made = np.zeros(len(segments), np.int64)
    for event in np.flatnonzero((action == SEGMENT_ALLOC) & lies_in):
        made[at[event]] = event
    inside = lies_in & (np.arange(len(address)) >= made[at])
    ids = [None if segment.pool_id == DEFAULT_POOL else segment.pool_id for segment in segments]
    return [ids[n] if known else None for n, known in zip(at.tolist(), inside.tolist(), strict=True)]


def _last_epoch(rank: RankTrace, device_id: int) -> tuple[int, bool, bool]:
    """Return the first event after the last gap, whether events were lost after it, and whether there is a gap."""
    windows, events = rank.table("windows"), rank.table("events")
    first, lost, is_cut, seen = 0, False, False, False
    for row in range(len(windows)):
        start, count = int(windows["first_event"][row]), int(windows["num_events"][row])
        if not np.any(events["device"][start : start + count] == device_id):
            continue
        if seen and not windows["continues"][row]:
            first, lost, is_cut = start, False, True
        lost |= int(windows["num_lost"][row]) != 0
        seen = True
    return first, lost, is_cut


def _final(rank: RankTrace, device_id: int) -> tuple[tuple[Segment, ...], FinalBlocks]:
    """Return the segments and used blocks of the final snapshot."""
    table, blocks = rank.table("segments"), rank.table("blocks")
    small = rank.string_id("small")
    segments = tuple(
        Segment(
            address=int(table["address"][row]),
            size=int(table["total_bytes"][row]),
            stream=int(table["stream"][row]),
            is_small=bool(table["segment_type"][row] == small),
            pool_id=rank.text(int(table["pool_id"][row])) or DEFAULT_POOL,
            is_expandable=bool(table["is_expandable"][row]),
        )
        for row in np.flatnonzero(table["device"] == device_id)
    )
    inactive = rank.string_id(BlockName.INACTIVE.value)
    is_ours = table["device"][blocks["segment"]] == device_id if len(blocks) else np.zeros(0, np.bool_)
    chosen = np.flatnonzero(is_ours & (blocks["state"] != inactive))
    requested, size = blocks["requested_bytes"][chosen], blocks["size_bytes"][chosen]
    pending = rank.string_id(BlockName.ACTIVE_PENDING_FREE.value)
    return tuple(sorted(segments, key=lambda one: one.address)), FinalBlocks(
        address=blocks["address"][chosen],
        size=size,
        requested=np.where(requested == NULL, size, requested),
        is_pending=(blocks["state"][chosen] == pending).astype(np.int64),
    )


def freed_at_once(history: History) -> npt.NDArray[np.bool_]:
    """Return which events ask for a free that the next event completes."""
    action, address = history.action, history.address
    found = np.zeros(len(action), np.bool_)
    found[:-1] = (action[:-1] == FREE_REQUESTED) & (action[1:] == FREE_COMPLETED) & (address[:-1] == address[1:])
    return found


def end_of_releases(history: History, start: int) -> int:
    """Return the end of a run of events that give memory back."""
    at = start
    while at < len(history.action) and SEGMENT_MAP < history.action[at] <= SEGMENT_UNMAP:
        at += 1
    return at


def flushed_retries(history: History, at_once: npt.NDArray[np.bool_]) -> dict[int, int]:
    """Return where a request may have failed and waited for all streams: its first completed free, and its alloc.

    Such a flush shows as completed frees, then memory given back, then memory taken, then the alloc. torch searches
    for a block before, and not again after.
    """
    action, found = history.action, dict[int, int]()
    gives_back = (action > SEGMENT_MAP) & (action <= SEGMENT_UNMAP)
    starts = np.flatnonzero(gives_back & ~np.concatenate([[False], gives_back[:-1]]))
    for start in starts.tolist():
        first = start
        while first > 0 and action[first - 1] == FREE_COMPLETED and not (first > 1 and at_once[first - 2]):
            first -= 1
        after = end_of_releases(history, start)
        if first < start and after < len(action) and action[after] in (SEGMENT_ALLOC, SEGMENT_MAP):
            while after < len(action) and action[after] in (SEGMENT_ALLOC, SEGMENT_MAP):
                after += 1
            if after < len(action) and action[after] == ALLOC:
                found[first] = after
    return found


def reserved_deltas(history: History) -> IntArray:
    """Return by how many bytes each event changes what is reserved."""
    action = history.action
    grows = (action == SEGMENT_ALLOC) | (action == SEGMENT_MAP)
    shrinks = (action > SEGMENT_MAP) & (action <= SEGMENT_UNMAP)
    deltas: IntArray = history.size * (grows * 1 - shrinks * 1)
    return deltas


def find_fronts(history: History, segments: Sequence[Segment], settings: Settings) -> dict[int, int]:
    """Return, by address of the first mapped range of a segment (all ranges by address), where it begins if lower.

    A flush may have unmapped the front of an expandable segment. No mapped range shows it then, but torch maps the
    lowest space that has room, so that it is what is mapped next where it is large enough. A range that is mapped below
    all others of its stream and pool, while the segment is there, is such a front: a segment that has room never gets a
    second one beside it.
    """
    changes = np.flatnonzero((history.action == SEGMENT_MAP) | (history.action == SEGMENT_UNMAP))
    columns = (history.action, history.address, history.size, history.stream)
    events = list(zip(*(column[changes].tolist() for column in columns), strict=True))
    fronts, at = dict[int, int](), 0
    while at < len(segments):
        first, after = segments[at], at + 1
        while after < len(segments) and _are_one(first, segments[after]):
            after += 1
        if first.is_expandable:
            floor = segments[at - 1].end if at else 0
            ceiling = segments[after].address if after < len(segments) else None
            mapped = sum(segment.size for segment in segments[at:after])
            granule = SMALL_SEGMENT if first.is_small else settings.large_segment_size
            front = _front(first, events, floor, ceiling, mapped, granule)
            if front < first.address:
                fronts[first.address] = front
        at = after
    return fronts


def _are_one(one: Segment, other: Segment) -> bool:
    """Return whether mapped ranges are of one segment: of one stream and pool."""
    same = (one.stream, one.is_small, one.pool_id) == (other.stream, other.is_small, other.pool_id)
    return same and one.is_expandable and other.is_expandable


def _front(
    first: Segment,
    events: Sequence[tuple[int, int, int, int]],
    floor: int,
    ceiling: int | None,
    mapped: int,
    granule: int,
) -> int:
    """Return the lowest address at which memory is mapped as long as the segment is there."""
    lowest = first.address
    for action, address, size, stream in events:
        if action == SEGMENT_UNMAP:
            if lowest <= address and (ceiling is None or address < ceiling):
                mapped -= size
                if mapped <= 0:
                    return lowest
            continue
        is_small = size % granule != 0 if not first.is_small else size == SMALL_SEGMENT
        if stream != first.stream or is_small != first.is_small or (ceiling is not None and address >= ceiling):
            continue
        if address >= lowest:
            mapped += size
        elif floor <= address and (lowest - address) % granule == 0:
            lowest, mapped = address, mapped + size
    return lowest
