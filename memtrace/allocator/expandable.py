"""Expandable segments: one segment a stream and pool, which grows by mapping memory and shrinks by unmapping it.

The rules are those of torch's `ExpandableSegment`, `find_expandable_block`, `map_block` and `unmap_block`.
"""

from __future__ import annotations

from memtrace.allocator.blocks import FREE, UNMAPPED, Block, Entry, Expandable, Pool
from memtrace.allocator.device_memory import DeviceMemory
from memtrace.allocator.sizes import SMALL_SEGMENT, round_up


def best_of(free: list[Entry], at: int, *, is_on: bool) -> int | None:
    """Return which free block a search takes that came upon one of an expandable segment; `None` for none.

    While expandable segments are on, a block counts with the unmapped space behind it, so that what can grow is kept
    for large requests: of 4 MiB with 60 MiB of space behind them and 6 MiB with none, the 6 MiB are taken. While they
    are off, such blocks are passed over.
    """
    if not is_on:
        return next((n for n in range(at, len(free)) if free[n][2].expandable is None), None)
    while (
        at + 1 < len(free)
        and free[at][2].expandable is not None
        and _size_it_can_have(free[at + 1][2]) < _size_it_can_have(free[at][2])
    ):
        at += 1
    return at


def _size_it_can_have(block: Block) -> int:
    after = block.next
    return block.size + (after.size if after is not None and after.state == UNMAPPED else 0)


def grow(memory: DeviceMemory, pool: Pool, size: int, stream: int) -> Block | None:
    """Return a free block of at least this size, in no pool, mapping what it lacks; `None` without memory for it."""
    block: Block | None = _candidate(memory, pool, size, stream)
    assert block is not None
    if block.state == UNMAPPED:
        block = _map(memory, block, min(block.size, size))
    while block is not None and block.size < size:
        # What was found is free and unmapped space by turns, so unmapped space follows.
        after = block.next
        assert after is not None
        block = _map(memory, after, min(size - block.size, after.size))
    if block is not None:
        pool.remove(block)
    return block


def _candidate(memory: DeviceMemory, pool: Pool, size: int, stream: int) -> Block:
    """Return the first block from which free and unmapped space of this size follows; else a new segment's."""
    for _, block in pool.unmapped.get(stream, []):
        before = block.prev
        start = before if before is not None and before.state == FREE else block
        if _has_room(start, size):
            return start
    granule = SMALL_SEGMENT if pool.is_small else memory.settings.large_segment_size
    address, space = memory.driver.reserve(granule)
    return add_expandable(memory, Expandable(address, space, granule), pool, stream)


def add_expandable(memory: DeviceMemory, segment: Expandable, pool: Pool, stream: int) -> Block:
    """Add a segment of which nothing is mapped, and return the block that is all of it."""
    block = Block(segment.address, segment.size, pool, stream, UNMAPPED, segment, memory.next_made())
    segment.head = block
    memory.expandables.append(segment)
    pool.insert_unmapped(block)
    return block


def _has_room(block: Block | None, size: int) -> bool:
    while size > 0 and block is not None and block.state in (FREE, UNMAPPED):
        size -= block.size
        block = block.next
    return size <= 0


def _map(memory: DeviceMemory, block: Block, size: int) -> Block | None:
    """Map the start of an unmapped block, in whole granules, and return the free block that it became part of."""
    assert block.expandable is not None
    size = round_up(size, block.expandable.granule)
    if not memory.driver.map(block.address, size):
        return None
    memory.num_device_mallocs += 1
    return put_memory(memory, block, size)


def put_memory(memory: DeviceMemory, block: Block, size: int) -> Block:
    """Count the start of an unmapped block as free memory, merged with free neighbours."""
    pool = block.pool
    pool.remove_unmapped(block)
    if size < block.size:
        rest = Block(
            block.address + size, block.size - size, pool, block.stream, UNMAPPED, block.expandable, block.made
        )
        block.size = size
        block.insert_after(rest)
        pool.insert_unmapped(rest)
    block.state = FREE
    memory.reserved_bytes += size
    before, after = block.prev, block.next
    if before is not None and before.state == FREE:
        pool.remove(before)
        before.absorb_next()
        block = before
    if after is not None and after.state == FREE:
        pool.remove(after)
        block.absorb_next()
    pool.insert(block)
    return block


def unmap(memory: DeviceMemory, block: Block) -> None:
    """Unmap the granules that lie wholly inside a free block.

    Of a block from 1 to 7 MiB of its segment, with granules of 2 MiB, those from 2 to 6 MiB; 1 to 2 and 6 to 7 MiB stay
    free, since the other half of their granules is in use.
    """
    segment = block.expandable
    assert segment is not None
    start = segment.address + round_up(block.address - segment.address, segment.granule)
    length = (block.address + block.size - segment.address) // segment.granule * segment.granule
    stop = segment.address + length
    if start < stop:
        take_memory(memory, block, start, stop)
        memory.driver.unmap(start, stop - start)


def take_memory(memory: DeviceMemory, block: Block, start: int, stop: int) -> None:
    """Count a range of a free block as unmapped again; what is left before and behind it stays free."""
    pool, end = block.pool, block.address + block.size
    pool.remove(block)
    memory.reserved_bytes -= stop - start
    if start > block.address:
        gone = Block(start, end - start, pool, block.stream, UNMAPPED, block.expandable, block.made)
        block.size = start - block.address
        block.insert_after(gone)
        pool.insert(block)
        block = gone
    if stop < end:
        rest = Block(stop, end - stop, pool, block.stream, FREE, block.expandable, block.made)
        block.size = stop - block.address
        block.insert_after(rest)
        pool.insert(rest)
    block.state = UNMAPPED
    before, after = block.prev, block.next
    if before is not None and before.state == UNMAPPED:
        pool.remove_unmapped(before)
        before.absorb_next()
        block = before
    if after is not None and after.state == UNMAPPED:
        pool.remove_unmapped(after)
        block.absorb_next()
    pool.insert_unmapped(block)
    if block.is_whole_segment:
        pool.remove_unmapped(block)
        assert block.expandable is not None
        memory.expandables.remove(block.expandable)
