"""The recorded side of a replay: a driver that answers from the record, and how the model adopts what is recorded.

An event that contradicts the model, and that no unknown remainder explains, costs what hundreds of blocks cost to look
at, and two looks at the free blocks: one of them holds the recorded address. All such events together may cost as much
as looking at one block for each event of the history, which takes a small part of the time in which that event is
replayed. So a history that contradicts the model takes little longer than one that does not, whatever it holds. What
an unknown remainder explains is not counted: that happens once for each block that may have one.
"""

from __future__ import annotations

from collections import deque

from memtrace.allocator import expandable
from memtrace.allocator.blocks import FREE, Block, Expandable, Pool
from memtrace.allocator.history import SEGMENT_ALLOC, SEGMENT_FREE, SEGMENT_MAP, SEGMENT_UNMAP, History
from memtrace.allocator.model import Allocator
from memtrace.allocator.sizes import SMALL_SIZE, segment_size

_SPACE = 1 << 42
LEAST_BLOCKS = 4_000_000
"""What looking may cost in any history, however short: some tenths of a second."""
EACH = 200
"""What a contradiction costs beside looking at blocks."""


class GivenUpError(Exception):
    """The history contradicts the model too often for a proof."""


class Effort:
    """What looking has cost over all passes of a replay, in blocks that were looked at."""

    def __init__(self, num_events: int) -> None:
        self._left = max(num_events, LEAST_BLOCKS)

    def look_at(self, num_blocks: int) -> None:
        """Count an event that nothing explains, while there are so many free blocks.

        Raises:
            GivenUpError: it is one too many.
        """
        self._left -= EACH + 2 * num_blocks
        if self._left < 0:
            raise GivenUpError


class RecordedDevice:
    """A driver that gives what the record says was given: the address of a segment is an input of the model."""

    def __init__(self, history: History) -> None:
        self._history = history
        self.waiting: deque[int] = deque()
        """Positions of segment_alloc and segment_map events that no alloc has used yet."""
        self._wrong: list[int] = []

    def serve(
        self, allocator: Allocator, pool: Pool, size: int, stream: int, *, searches: bool
    ) -> tuple[Block | None, list[int]]:
        """Return the block, in no pool, that an alloc gets for which the record took memory, and events that are wrong.

        The model searches first, unless it has done so before a flush. If it finds a block, the record should not have
        taken memory.
        """
        self._wrong = []
        block = allocator.find(pool, size, stream) if searches else None
        if block is not None:
            pool.insert(block)
            self._wrong = list(self.waiting)
            while self.waiting:
                apply_segment_event(allocator, self._history, self.waiting.popleft())
            return allocator.find(pool, size, stream), self._wrong
        if allocator.settings.expandable_segments:
            block = expandable.grow(allocator, pool, size, stream)
        else:
            new_bytes = segment_size(size, allocator.settings)
            address = self.malloc(new_bytes)
            block = None if address is None else allocator.add_segment(address, new_bytes, pool, stream)
        while self.waiting:
            self._wrong.append(self.waiting[0])
            apply_segment_event(allocator, self._history, self.waiting.popleft())
        return block, self._wrong

    def malloc(self, size: int) -> int | None:
        """Return where the record says that a segment of this size lies; `None` if it has none."""
        return self._take(SEGMENT_ALLOC, size)

    def free(self, address: int, size: int) -> None:
        """Nothing: what is given back is compared by the replay."""

    def reserve(self, granule: int) -> tuple[int, int]:
        """Return address space at the address that is mapped next, an input as that of a segment is."""
        address = int(self._history.address[self.waiting[0]]) if self.waiting else 0
        return address, _SPACE

    def map(self, address: int, size: int) -> bool:
        """Return whether the record mapped that much here."""
        return self._take(SEGMENT_MAP, size) is not None

    def unmap(self, address: int, size: int) -> None:
        """Nothing: what is given back is compared by the replay."""

    def _take(self, action: int, size: int) -> int | None:
        if not self.waiting:
            return None
        at = self.waiting[0]
        if int(self._history.action[at]) != action or int(self._history.size[at]) != size:
            return None
        self.waiting.popleft()
        return int(self._history.address[at])


def apply_segment_event(allocator: Allocator, history: History, at: int) -> bool:
    """Do to the model what the record says was done to segments. Return whether that was possible."""
    action, address, size = int(history.action[at]), int(history.address[at]), int(history.size[at])
    if action == SEGMENT_ALLOC:
        pool = allocator.small if size == 2 * SMALL_SIZE else allocator.large
        pool.insert(allocator.add_segment(address, size, pool, int(history.stream[at])))
        return True
    if action == SEGMENT_FREE:
        block = allocator.heads.get(address)
        if block is None or block.state != FREE or block.next is not None:
            return False
        allocator.remove_segment(block)
        return True
    return _apply_mapping(allocator, action, address, size, int(history.stream[at]))


def _apply_mapping(allocator: Allocator, action: int, address: int, size: int, stream: int) -> bool:
    pools = [pool for pair in [(allocator.small, allocator.large), *allocator.private.values()] for pool in pair]
    if action == SEGMENT_UNMAP:
        for pool in pools:
            for block in pool.free_blocks():
                if block.address <= address and address + size <= block.address + block.size and block.expandable:
                    expandable.take_memory(allocator, block, address, address + size)
                    return True
        return False
    if action == SEGMENT_MAP:
        for pool in pools:
            for start, block in pool.unmapped.get(stream, []):
                if start == address and size <= block.size:
                    expandable.put_memory(allocator, block, size)
                    return True
        granule = allocator.settings.large_segment_size
        pool = allocator.small if size % granule else allocator.large
        segment = Expandable(address, _SPACE, 2 * SMALL_SIZE if pool.is_small else granule)
        expandable.put_memory(allocator, expandable.add_expandable(allocator, segment, pool, stream), size)
        return True
    return False


def free_block_at(allocator: Allocator, address: int, size: int) -> Block | None:
    """Return the free block that holds these bytes."""
    pools = [pool for pair in [(allocator.large, allocator.small), *allocator.private.values()] for pool in pair]
    for pool in pools:
        for entries in pool.free.values():
            for free_bytes, _, block in entries:
                if block.address <= address and address + size <= block.address + free_bytes:
                    return block
    return None


def num_free_blocks(allocator: Allocator) -> int:
    """Return how many free blocks `free_block_at` may have to look at."""
    pools = [pool for pair in [(allocator.large, allocator.small), *allocator.private.values()] for pool in pair]
    return sum(len(entries) for pool in pools for entries in pool.free.values())


def adopt(allocator: Allocator, address: int, size: int, requested: int, stream: int) -> int:
    """Allocate the block at a recorded address, whatever the rules say. Return its bytes, 0 if none is free."""
    block = free_block_at(allocator, address, size)
    if block is None:
        return 0
    pool = block.pool
    pool.remove(block)
    if block.address < address:
        rest = Block(address, block.address + block.size - address, pool, block.stream, FREE, made=block.made)
        rest.expandable = block.expandable
        block.size = address - block.address
        block.insert_after(rest)
        pool.insert(block)
        block = rest
    return allocator.hand_out(block, size, requested).size
