"""Where an expandable segment begins that had no memory at its front when the history began.

A flush may have unmapped the front of a segment. No mapped range shows it then, but torch maps the lowest space that
has room, so that it is what is mapped next where it is large enough. A range that is mapped below all others of its
stream and pool, while the segment is there, is such a front: a segment that has room never gets a second one beside it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from memtrace.allocator.history import SEGMENT_MAP, SEGMENT_UNMAP, History, Segment
from memtrace.allocator.settings import Settings
from memtrace.allocator.sizes import SMALL_SEGMENT


def find_fronts(history: History, segments: Sequence[Segment], settings: Settings) -> dict[int, int]:
    """Return, by address of the first mapped range of a segment (all ranges by address), where it begins if lower."""
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
