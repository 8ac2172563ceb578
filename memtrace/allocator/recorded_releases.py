"""What the model gives back to the device where a recording has a run of segment_free and segment_unmap events.

Why memory went back is not recorded: the program emptied the cache, or a request collected garbage, freed just enough,
or flushed. Which of these it was hangs on limits that no recording holds, so each is predicted whole, and the one that
the record agrees with is taken; if none, the flush.

Garbage collection goes by age, and two ages are not recorded. A free that waited for a stream and completes right
before may have done so before the request searched, or after: both are tried. How long a segment had been free when the
history began nobody knows: which of these are collected is taken from the record, as long as no segment stays that is
known to be as old as one that goes.
"""

from __future__ import annotations

from collections.abc import Iterator

from memtrace.allocator.blocks import FREE, UNKNOWN_AGE, Block, Pool
from memtrace.allocator.history import ALLOC, FREE_COMPLETED, OOM, SEGMENT_UNMAP, History, end_of_releases
from memtrace.allocator.model import Allocator
from memtrace.allocator.settings import UNLIMITED
from memtrace.allocator.sizes import SMALL_SIZE, round_size, round_up

Release = tuple[str, int]
"""What is done ("free" or "unmap"), and bytes."""


def predicted_releases(allocator: Allocator, history: History, start: int, stop: int) -> list[Release]:
    """Return what the model gives back at a run of events; nothing is given back yet."""
    actions, sizes = history.action[start:stop].tolist(), history.size[start:stop].tolist()
    recorded = [
        ("unmap" if action == SEGMENT_UNMAP else "free", size) for action, size in zip(actions, sizes, strict=True)
    ]
    flush = _flush(allocator, [])
    for first in _partial(allocator, history, start, stop):
        freed = [("free", block.size) for block in first]
        for candidate in (freed, freed + _flush(allocator, first)):
            if candidate == recorded:
                return candidate
    return flush


def may_be_flush(allocator: Allocator, history: History, first: int) -> bool:
    """Return whether a run of events that give memory back, right behind completed frees, may be a flush.

    A flush completes all frees and then gives back every segment that is free as a whole: what stays free tells that
    the frees completed by themselves, before the request searched, and that something else gave memory back.
    """
    start = first
    while history.action[start] == FREE_COMPLETED:
        start += 1
    given_back = set(history.address[start : end_of_releases(history, start)].tolist())
    whole = {
        block.address
        for pool in (allocator.large, allocator.small)
        for block in pool.free_blocks()
        if block.is_whole_segment and block.expandable is None
    }
    completed = (allocator.live.get(address) for address in history.address[first:start].tolist())
    whole |= {found for block in completed if block is not None and (found := _segment_freed_by(block)) is not None}
    return whole <= given_back


def _segment_freed_by(block: Block) -> int | None:
    """Return the segment that is free as a whole once a block is; `None` if others of it are in use."""
    before, after = block.prev, block.next
    is_first = before is None or (before.state == FREE and before.prev is None)
    is_last = after is None or (after.state == FREE and after.next is None)
    if block.expandable is not None or not is_first or not is_last:
        return None
    return block.address if before is None else before.address


def _flush(allocator: Allocator, gone: list[Block]) -> list[Release]:
    """Return what `release.release_cached` gives back once some segments are gone."""
    return [one for pool in (allocator.large, allocator.small) for one in _releases_of(pool, gone)]


def _releases_of(pool: Pool, gone: list[Block]) -> list[Release]:
    free = pool.free_blocks()
    found = [
        ("free", block.size)
        for block in free
        if block.expandable is None and block.is_whole_segment and block not in gone
    ]
    for block in free:
        if block.expandable is not None:
            segment = block.expandable
            first = round_up(block.address - segment.address, segment.granule)
            last = (block.address + block.size - segment.address) // segment.granule * segment.granule
            if first < last:
                found.append(("unmap", last - first))
    return found


def _partial(allocator: Allocator, history: History, start: int, stop: int) -> Iterator[list[Block]]:
    """Yield the segments that a request may have given back before it flushed, or without a flush."""
    if allocator.settings.garbage_collection_threshold > 0:
        yield from _collected(allocator, youngest=0)
        yield from _collected(allocator, youngest=1)
        yield from _collected_by_record(allocator, history.address[start:stop].tolist())
    if allocator.settings.max_split_size != UNLIMITED:
        after = next((at for at in range(stop, len(history.action)) if history.action[at] in (ALLOC, OOM)), None)
        if after is not None:
            yield _just_enough(allocator, int(history.size[after]), int(history.stream[after]))


def _collected(allocator: Allocator, *, youngest: int) -> Iterator[list[Block]]:
    """Yield what one round of garbage collection frees, what two free, and so on (see `release.collect_garbage`).

    What became free last counts as of this age: 0 if the request had searched before, 1 if it did after.
    """
    left = _collectable(allocator)
    found: list[Block] = []
    while left:
        ages = [max(_age(block), youngest) for block in left]
        average = sum(ages) / len(ages)
        found = found + [block for block, age in zip(left, ages, strict=True) if age >= average]
        left = [block for block, age in zip(left, ages, strict=True) if age < average]
        yield found


def _collected_by_record(allocator: Allocator, addresses: list[int]) -> Iterator[list[Block]]:
    """Yield ever fewer of the segments that were given back first, where some are older than the history."""
    left = {block.address: block for block in _collectable(allocator)}
    if all(block.age_base != UNKNOWN_AGE for block in left.values()):
        return
    found: list[Block] = []
    while len(found) < len(addresses) and addresses[len(found)] in left:
        found.append(left.pop(addresses[len(found)]))
    while found:
        stay = max((_age(block) for block in left.values() if block.age_base != UNKNOWN_AGE), default=-1)
        if all(_age(block) > stay for block in found):
            yield list(found)
        last = found.pop()
        left[last.address] = last


def _collectable(allocator: Allocator) -> list[Block]:
    return [block for block in allocator.large.free_blocks() if block.is_whole_segment and block.expandable is None]


def _age(block: Block) -> int:
    return block.pool.searches - block.age_base


def _just_enough(allocator: Allocator, requested: int, stream: int) -> list[Block]:
    """Return what `release.release_available` would free for a request."""
    size = round_size(requested, allocator.settings)
    pool = allocator.large if size > SMALL_SIZE else allocator.small
    key = max(size, allocator.settings.max_split_size)
    blocks = [entry[2] for entry in pool.free.get(stream, []) if entry[2].expandable is None]
    fitting = [block for block in blocks if block.size >= key]
    if fitting:
        return fitting[:1]
    found: list[Block] = []
    for block in reversed(blocks):
        if sum(one.size for one in found) >= key or block.size < allocator.settings.max_split_size:
            break
        found.append(block)
    return found
