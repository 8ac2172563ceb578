"""Blocks, the pools that keep free ones, and the driver that gives memory: what the model of the allocator is made of.

Blocks of a segment form a doubly linked list in address order and tile it. A pool keeps its free blocks sorted by size,
then address, apart for each stream: torch has one set ordered by (stream, size, address), which is the same. Between
size and address newer versions look at an age, that of the block (torch 2.12) or of its segment (since 2.13).
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import defaultdict
from typing import Protocol

from memtrace.schema.names import DEFAULT_POOL

FREE = 0
ALLOCATED = 1
PENDING = 2
"""Freed by the program, but another stream may still use it."""
UNMAPPED = 3
"""Address space of an expandable segment without memory behind it."""
UNKNOWN_AGE = -1
"""`Block.age_base` of what was free before a history: older than all that became free in it."""


class Expandable:
    """An expandable segment: reserved address space in which memory is mapped, a granule at a time."""

    __slots__ = ("address", "granule", "head", "size")

    def __init__(self, address: int, size: int, granule: int) -> None:
        self.address = address
        self.size = size
        self.granule = granule
        self.head: Block | None = None


class Block:
    """A piece of a segment. Sizes in bytes."""

    __slots__ = (
        "address",
        "age_base",
        "expandable",
        "made",
        "next",
        "order",
        "pool",
        "prev",
        "requested",
        "size",
        "state",
        "stream",
    )

    def __init__(
        self,
        address: int,
        size: int,
        pool: Pool,
        stream: int,
        state: int = FREE,
        expandable: Expandable | None = None,
        made: int = 0,
    ) -> None:
        self.address = address
        self.made = made
        """When it or its segment was made, a number larger than all addresses; 0 where only addresses count."""
        self.order = made + address
        """What decides between blocks of one size."""
        self.size = size
        self.pool = pool
        self.stream = stream
        self.state = state
        self.expandable = expandable
        self.requested = 0
        self.age_base = 0
        self.prev: Block | None = None
        self.next: Block | None = None

    def __repr__(self) -> str:
        return f"Block({self.address:#x}, {self.size}, {('free', 'allocated', 'pending', 'unmapped')[self.state]})"

    def __lt__(self, other: Block) -> bool:
        # Two blocks have one size and address only in a damaged recording: their order then does not matter.
        return False

    def set_made(self, made: int) -> None:
        """Change the age of a block that is in no pool."""
        self.made = made
        self.order = made + self.address

    @property
    def is_whole_segment(self) -> bool:
        """Whether the block has no neighbours."""
        return self.prev is None and self.next is None

    def insert_after(self, block: Block) -> None:
        """Link a block behind this one."""
        block.prev, block.next = self, self.next
        if self.next is not None:
            self.next.prev = block
        self.next = block

    def absorb_next(self) -> None:
        """Take over the next block's bytes; the object of the lower address stays, so that heads of segments do."""
        gone = self.next
        assert gone is not None
        self.size += gone.size
        self.next = gone.next
        if gone.next is not None:
            gone.next.prev = self


Entry = tuple[int, int, Block]
"""Size, order and block of a free block, in the order of the search."""


class Pool:
    """Free and unmapped blocks of one pool, by stream."""

    __slots__ = ("free", "is_small", "no_split", "pool_id", "searches", "unmapped", "use_count")

    def __init__(self, *, is_small: bool, pool_id: str = DEFAULT_POOL, no_split: bool = False) -> None:
        self.is_small = is_small
        self.pool_id = pool_id
        self.no_split = no_split
        """Blocks of this pool are handed out whole (a MemPool of torch 2.10 can ask for it)."""
        self.free: defaultdict[int, list[Entry]] = defaultdict(list)
        self.unmapped: dict[int, list[tuple[int, Block]]] = {}
        self.searches = 0
        """Searches made while garbage collection was on: the clock by which free blocks age."""
        self.use_count = 1
        """Graphs and contexts that use a private pool; its segments can be freed once it is 0."""

    def insert(self, block: Block) -> None:
        """Add a free block."""
        block.age_base = self.searches
        insort(self.free[block.stream], (block.size, block.order, block))

    def remove(self, block: Block) -> None:
        """Take out a free block."""
        entries = self.free[block.stream]
        # (512, 64) sorts before (512, 64, block), so that the search ends there without comparing blocks.
        del entries[bisect_left(entries, (block.size, block.order))]

    def insert_unmapped(self, block: Block) -> None:
        """Add address space without memory."""
        insort(self.unmapped.setdefault(block.stream, []), (block.address, block))

    def remove_unmapped(self, block: Block) -> None:
        """Take out address space without memory."""
        entries = self.unmapped[block.stream]
        del entries[bisect_left(entries, (block.address,))]

    def free_blocks(self) -> list[Block]:
        """Return all free blocks in torch's order: by stream, size and what decides between equal sizes."""
        return [block for stream in sorted(self.free) for _, _, block in self.free[stream]]


class Driver(Protocol):
    """Where segments come from: a recording that is replayed, or a device that is imagined."""

    def malloc(self, size: int) -> int | None:
        """Return the address of a new segment, `None` if there is no memory."""

    def free(self, address: int, size: int) -> None:
        """Take a segment back."""

    def reserve(self, granule: int) -> tuple[int, int]:
        """Return address and bytes of address space for an expandable segment of such granules."""

    def map(self, address: int, size: int) -> bool:
        """Put memory behind address space; return whether there was enough."""

    def unmap(self, address: int, size: int) -> None:
        """Take the memory behind address space back."""


class Device:
    """A device that is imagined: memory up to a capacity, at addresses that are never used twice."""

    def __init__(self, capacity_bytes: int | None = None, *, base: int = 1 << 46, used_bytes: int = 0) -> None:
        self.capacity_bytes = capacity_bytes
        self.used_bytes = used_bytes
        self._next = base

    def malloc(self, size: int) -> int | None:
        """Return the address of a new segment, `None` above the capacity."""
        if not self.map(0, size):
            return None
        address = self._next
        self._next += size
        return address

    def free(self, address: int, size: int) -> None:
        """Count a segment as free again."""
        self.used_bytes -= size

    def reserve(self, granule: int) -> tuple[int, int]:
        """Return fresh address space: 9/8 of the capacity in whole granules, as torch reserves."""
        # Without a capacity, room for more than any device has: 4 TiB of addresses cost nothing.
        capacity = self.capacity_bytes if self.capacity_bytes is not None else 1 << 42
        size = -(-(capacity + capacity // 8) // granule) * granule
        address = self._next
        self._next += size
        return address, size

    def map(self, address: int, size: int) -> bool:
        """Count memory as used if there is enough."""
        if self.capacity_bytes is not None and self.used_bytes + size > self.capacity_bytes:
            return False
        self.used_bytes += size
        return True

    def unmap(self, address: int, size: int) -> None:
        """Count memory as free again."""
        self.used_bytes -= size
