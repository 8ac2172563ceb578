"""What the model gives back to the device where a recording has a run of segment_free and segment_unmap events.

Why memory went back is not recorded: the program emptied the cache, or a request collected garbage, freed just enough,
or flushed. Which of these it was hangs on limits that no recording holds, so each is predicted whole, and the one that
the record agrees with is taken; if none, the flush.
"""

from __future__ import annotations

from collections.abc import Iterator

from memtrace.allocator.blocks import Block, Pool
from memtrace.allocator.history import ALLOC, OOM, SEGMENT_UNMAP, History
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
    for first in _partial(allocator, history, stop):
        freed = [("free", block.size) for block in first]
        for candidate in (freed, freed + _flush(allocator, first)):
            if candidate == recorded:
                return candidate
    return flush


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


def _partial(allocator: Allocator, history: History, stop: int) -> Iterator[list[Block]]:
    """Yield the segments that a request may have given back before it flushed, or without a flush."""
    if allocator.settings.garbage_collection_threshold > 0:
        yield from _collected(allocator)
    if allocator.settings.max_split_size != UNLIMITED:
        after = next((at for at in range(stop, len(history.action)) if history.action[at] in (ALLOC, OOM)), None)
        if after is not None:
            yield _just_enough(allocator, int(history.size[after]), int(history.stream[after]))


def _collected(allocator: Allocator) -> Iterator[list[Block]]:
    """Yield what one round of garbage collection frees, what two free, and so on (see `release.collect_garbage`)."""
    left = [block for block in allocator.large.free_blocks() if block.is_whole_segment and block.expandable is None]
    found: list[Block] = []
    while left:
        ages = [allocator.large.searches - block.age_base for block in left]
        average = sum(ages) / len(ages)
        found = found + [block for block, age in zip(left, ages, strict=True) if age >= average]
        left = [block for block, age in zip(left, ages, strict=True) if age < average]
        yield found


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
