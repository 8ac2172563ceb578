"""What the allocator of one device holds: pools, blocks, segments, and the levels of memory.

Nothing is decided here: the model decides what a request gets; `expandable` and `release` take memory from the device
and give it back.
"""

from __future__ import annotations

from bisect import bisect_left, insort

from memtrace.allocator.blocks import ALLOCATED, FREE, PENDING, Block, Driver, Expandable, Pool
from memtrace.allocator.settings import LOWEST_ADDRESS, OLDEST_BLOCK, Settings
from memtrace.schema.names import DEFAULT_POOL

ABOVE_ADDRESSES = 64
"""Bits of an address."""


class DeviceMemory:
    """The pools, blocks and segments of one device."""

    def __init__(self, settings: Settings, driver: Driver, *, total_bytes: int | None = None) -> None:
        """Start empty, on a device of so many bytes where that is known."""
        self.settings = settings
        self.driver = driver
        self.limit_bytes: int | None = None
        """Bytes that may be reserved under `per_process_memory_fraction`; `None` is no limit."""
        if total_bytes is not None and settings.per_process_memory_fraction < 1:
            self.limit_bytes = int(settings.per_process_memory_fraction * total_bytes)
        self.small = Pool(is_small=True)
        self.large = Pool(is_small=False)
        self.private: dict[str, tuple[Pool, Pool]] = {}
        """Small and large pool of each private pool."""
        self.live: dict[int, Block] = {}
        """Blocks that are allocated, or freed but pending, by address."""
        self.heads: dict[int, Block] = {}
        """First block of each segment that is not expandable, by address."""
        self.expandables: list[Expandable] = []
        self.allocated_bytes = 0
        self.active_bytes = 0
        self.reserved_bytes = 0
        self.num_device_mallocs = 0
        """Segments taken from the device; of expandable segments, times that memory was mapped."""
        self.num_alloc_retries = 0
        self.num_ooms = 0
        self._num_made = 0
        self._counts_made = settings.equal_sizes != LOWEST_ADDRESS
        self._blocks_age = settings.equal_sizes == OLDEST_BLOCK

    def pools(self, pool_id: str) -> tuple[Pool, Pool]:
        """Return the small and the large pool of this id; a private one is made when it is first used."""
        if pool_id == DEFAULT_POOL:
            return self.small, self.large
        found = self.private.get(pool_id)
        if found is None:
            pair = Pool(is_small=True, pool_id=pool_id), Pool(is_small=False, pool_id=pool_id)
            found = self.private[pool_id] = pair
        return found

    def request_free(self, address: int) -> int:
        """Note that the program freed a block; it stays active until the free completes. Return its bytes."""
        block = self.live[address]
        if block.state == ALLOCATED:
            block.state = PENDING
            self.allocated_bytes -= block.size
        return block.size

    def complete_free(self, address: int) -> int:
        """Give a block back to its pool, merged with free neighbours. Return its bytes."""
        block = self.live.pop(address)
        size = block.size
        if block.state == ALLOCATED:
            self.allocated_bytes -= size
        self.active_bytes -= size
        free = block.pool.free[block.stream]
        block.state = FREE
        before = block.prev
        if before is not None and before.state == FREE:
            del free[bisect_left(free, (before.size, before.order))]
            before.absorb_next()
            if self._blocks_age:
                before.set_made(block.made)
            block = before
        after = block.next
        if after is not None and after.state == FREE:
            # As `absorb_next`, which most frees would spend a tenth of their time on calling.
            del free[bisect_left(free, (after.size, after.order))]
            block.size += after.size
            block.next = behind = after.next
            if behind is not None:
                behind.prev = block
        block.age_base = block.pool.searches
        insort(free, (block.size, block.order, block))
        return size

    def add_segment(self, address: int, size: int, pool: Pool, stream: int) -> Block:
        """Return a new segment as one free block that is in no pool yet."""
        block = Block(address, size, pool, stream, made=self.next_made())
        self.heads[address] = block
        self.reserved_bytes += size
        self.num_device_mallocs += 1
        return block

    def next_made(self) -> int:
        """Return what tells what is made now from what is older; 0 where only addresses count."""
        self._num_made += self._counts_made
        return self._num_made << ABOVE_ADDRESSES

    def remove_segment(self, block: Block) -> None:
        """Give back a segment that is one free block in its pool."""
        block.pool.remove(block)
        del self.heads[block.address]
        self.reserved_bytes -= block.size
        self.driver.free(block.address, block.size)
