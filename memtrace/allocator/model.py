"""The caching allocator of torch as a model: the same requests in the same order give the same addresses.

In: requests and frees, and a driver that gives segments. Out: addresses, and the levels of memory. The rules are those
of torch's `c10/cuda/CUDACachingAllocator.cpp` (see docs/allocator.md for the versions); each stands once, here, in
`sizes`, `expandable` and `release`.

A free happens in two parts, as in torch's record: the program asks for it, then it completes, at once or, where another
stream uses the block, when that stream is done. When that is, only the device knows: it is an input of the model.
"""

from __future__ import annotations

from bisect import bisect_left, insort

from memtrace.allocator import expandable, release
from memtrace.allocator.blocks import ALLOCATED, FREE, Block, Driver, Pool
from memtrace.allocator.device_memory import DeviceMemory
from memtrace.allocator.settings import UNLIMITED, Settings
from memtrace.allocator.sizes import MIN_BLOCK, SMALL_SIZE, rounding, segment_size


class Allocator(DeviceMemory):
    """One device's allocator: which memory a request gets, and when more is taken from the device."""

    def __init__(
        self, settings: Settings, driver: Driver, *, total_bytes: int | None = None, has_limit: bool = False
    ) -> None:
        """Start empty. `has_limit` says that there is a memory limit even if it is not known: free blocks then age."""
        super().__init__(settings, driver, total_bytes=total_bytes)
        self._round = rounding(settings)
        has_limit = has_limit or self.limit_bytes is not None
        self._collects = has_limit and settings.garbage_collection_threshold > 0
        self._limits_split = settings.max_split_size != UNLIMITED
        self._max_split = settings.max_split_size
        self._splits_all = settings.expandable_segments

    def malloc(self, requested: int, stream: int = 0, pool_id: str | None = None) -> Block | None:
        """Return the block that a request gets, `None` if it runs out of memory.

        A `pool_id` means that a capture or a MemPool is open: its pool serves the request, and nothing is flushed.
        """
        size = self._round(requested)
        if pool_id is None:
            pool = self.small if size <= SMALL_SIZE else self.large
        else:
            pool = self.pools(pool_id)[size > SMALL_SIZE]
        block = self.find(pool, size, stream) or self._grow(pool, size, stream, can_flush=pool_id is None)
        return None if block is None else self.hand_out(block, size, requested)

    def find(self, pool: Pool, size: int, stream: int) -> Block | None:
        """Take the best fitting free block out of its pool: of this stream, the smallest, and the first of those."""
        if self._collects:
            pool.searches += 1
        free = pool.free.get(stream)
        if free is None:
            return None
        # (size,) sorts before every (size, address, block): the first entry from here on is the best fit.
        at = bisect_left(free, (size,))
        if at == len(free):
            return None
        block = free[at][2]
        if block.expandable is not None:
            found = expandable.best_of(free, at, is_on=self._splits_all)
            if found is None:
                return None
            at, block = found, free[found][2]
        # With max_split_size 128 MiB a request of 20 MiB does not get a block of 200 MiB, which is kept for large ones.
        # One of 150 MiB does not get 180 MiB either, unless max_non_split_rounding is more than 30 MiB. Only this one
        # candidate is looked at.
        if self._limits_split and (
            block.size >= self._max_split
            if size < self._max_split
            else block.size >= size + self.settings.max_non_split_rounding
        ):
            return None
        del free[at]
        return block

    def hand_out(self, block: Block, size: int, requested: int) -> Block:
        """Allocate a block that is in no pool, splitting off what it need not have. The front is handed out."""
        pool, rest = block.pool, block.size - size
        if pool.is_small or self._splits_all:
            splits = rest >= MIN_BLOCK
        else:
            # A request of 19.5 MiB has the 20 MiB of its segment whole: what is left would be no use to a large one.
            splits = rest > SMALL_SIZE and size < self._max_split
        if splits and not pool.no_split:
            # As `Block.insert_after` and `Pool.insert` do, without two calls for each of millions of requests.
            after = block.next
            left = Block(block.address + size, rest, pool, block.stream, FREE, block.expandable, block.made)
            left.prev, left.next = block, after
            if after is not None:
                after.prev = left
            block.next = left
            block.size = size
            if self._blocks_age:
                # torch keeps the old block for what is left, and makes a new one that it hands out.
                block.set_made(self.next_made())
            left.age_base = pool.searches
            insort(pool.free[block.stream], (rest, left.order, left))
        block.state = ALLOCATED
        block.requested = requested
        self.live[block.address] = block
        self.allocated_bytes += block.size
        self.active_bytes += block.size
        return block

    def free(self, address: int) -> int:
        """Free a block that no other stream uses. Return its bytes."""
        self.request_free(address)
        return self.complete_free(address)

    def empty_cache(self) -> None:
        """Give everything back to the driver that is not in use, as `torch.cuda.empty_cache` does."""
        release.release_cached(self)

    def _grow(self, pool: Pool, size: int, stream: int, *, can_flush: bool) -> Block | None:
        """Return a block of new memory; the attempts are in torch's order. The pools are not searched again.

        That a flush may have made a free block that fits, and torch fails all the same, is its issue 189504.
        """
        new_bytes = segment_size(size, self.settings)
        if self.settings.throw_on_cudamalloc_oom and self._is_above_limit(new_bytes):
            self.num_ooms += 1
            return None
        if self._collects and self.limit_bytes is not None:
            release.collect_garbage(self)
        block = self._new_memory(pool, size, stream, new_bytes)
        if block is None and release.release_available(self, pool, size, stream):
            block = self._new_memory(pool, size, stream, new_bytes)
        if block is None and can_flush:
            release.release_cached(self)
            self.num_alloc_retries += 1
            block = self._new_memory(pool, size, stream, new_bytes)
        if block is None:
            self.num_ooms += 1
        return block

    def _is_above_limit(self, new_bytes: int) -> bool:
        return self.limit_bytes is not None and self.reserved_bytes + new_bytes > self.limit_bytes

    def _new_memory(self, pool: Pool, size: int, stream: int, new_bytes: int) -> Block | None:
        if self._is_above_limit(new_bytes):
            return None
        if self.settings.expandable_segments:
            return expandable.grow(self, pool, size, stream)
        address = self.driver.malloc(new_bytes)
        return None if address is None else self.add_segment(address, new_bytes, pool, stream)
