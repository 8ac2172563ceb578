"""How memory goes back to the driver: garbage collection, what a failing request frees, and the flush of everything."""

from __future__ import annotations

from bisect import bisect_left

from memtrace.allocator import expandable
from memtrace.allocator.blocks import PENDING, Block, Pool
from memtrace.allocator.device_memory import DeviceMemory
from memtrace.allocator.settings import UNLIMITED


def collect_garbage(memory: DeviceMemory) -> None:
    """Free unused segments of the large pool, those that no search took for longest first.

    Above the threshold only, and in rounds: each frees every segment of at least the average age, so that more may go
    than is needed and this need not happen again soon (torch's `garbage_collect_cached_blocks`). Of three segments of
    ages 9, 5 and 1, of which any would do, the first round frees two: the average is 5.
    """
    assert memory.limit_bytes is not None
    threshold = int(memory.settings.garbage_collection_threshold * memory.limit_bytes)
    wanted = memory.reserved_bytes - threshold
    pool = memory.large
    # Expandable segments count for the average, as in torch, and are not freed here.
    unsplit = [block for block in pool.free_blocks() if block.is_whole_segment]
    total_age, count, freed_any = sum(_age(block) for block in unsplit), len(unsplit), True
    while wanted > 0 and freed_any and count > 0:
        average, freed_any = total_age / count, False
        for block in [one for one in pool.free_blocks() if one.is_whole_segment and one.expandable is None]:
            if _age(block) >= average:
                freed_any = True
                wanted -= block.size
                total_age -= _age(block)
                count -= 1
                memory.remove_segment(block)


def _age(block: Block) -> int:
    return block.pool.searches - block.age_base


def release_available(memory: DeviceMemory, pool: Pool, size: int, stream: int) -> bool:
    """Free one segment that is large enough, or the largest ones until they are; only with `max_split_size`.

    Return whether enough was freed (torch's `release_available_cached_blocks`).
    """
    settings = memory.settings
    if settings.max_split_size == UNLIMITED:
        return False
    key = max(size, settings.max_split_size)
    free = pool.free.get(stream, [])
    at = bisect_left(free, (key,))
    if at < len(free) and free[at][2].expandable is None:
        memory.remove_segment(free[at][2])
        return True
    # None is large enough alone: from the largest down, and only segments that nothing small may have been put into.
    # With max_split_size 100 MiB a request of 300 MiB frees 200 and 150 MiB, and leaves 120 MiB.
    released = 0
    while at > 0 and released < key and free[at - 1][0] >= settings.max_split_size:
        at -= 1
        block = free[at][2]
        if block.expandable is None:
            released += block.size
            memory.remove_segment(block)
    return released >= key


def release_cached(memory: DeviceMemory) -> None:
    """Wait for all streams, then free every segment that is one free block, and unmap what is free in others."""
    # The list first: completing a free takes its block out of `live`.
    for address in [address for address, block in memory.live.items() if block.state == PENDING]:
        memory.complete_free(address)
    _release_pool(memory, memory.large)
    _release_pool(memory, memory.small)
    for small, large in memory.private.values():
        if small.use_count == 0:
            _release_pool(memory, small)
            _release_pool(memory, large)


def _release_pool(memory: DeviceMemory, pool: Pool) -> None:
    free = pool.free_blocks()
    for block in free:
        if block.expandable is None and block.is_whole_segment:
            memory.remove_segment(block)
    for block in free:
        if block.expandable is not None:
            expandable.unmap(memory, block)
