"""A second model of torch's caching allocator, written to be read and not to be fast: the fast one is checked with it.

One flat list of blocks a segment, every search a scan over all of them. Written from the rules in docs/allocator.md,
sharing no code with `memtrace.allocator` but the parsed settings.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from memtrace.allocator.settings import Settings

MIB = 1 << 20


@dataclass(eq=False)
class RefBlock:
    address: int
    size: int
    stream: int
    is_small: bool
    state: str = "free"
    born: int = 0
    requested: int = 0


@dataclass(eq=False)
class RefSegment:
    blocks: list[RefBlock]
    expandable: bool
    granule: int = 0
    start: int = 0


@dataclass
class Reference:
    """The whole allocator: segments in no order, and counters."""

    settings: Settings
    capacity: int
    segments: list[RefSegment] = field(default_factory=list)
    clock: dict[bool, int] = field(default_factory=lambda: {True: 0, False: 0})
    next_address: int = 1 << 46
    retries: int = 0
    ooms: int = 0

    @property
    def limit(self) -> int | None:
        share = self.settings.per_process_memory_fraction
        return int(share * self.capacity) if share < 1 else None

    @property
    def collects(self) -> bool:
        return self.limit is not None and self.settings.garbage_collection_threshold > 0

    def blocks(self) -> list[tuple[RefSegment, RefBlock]]:
        return [(segment, block) for segment in self.segments for block in segment.blocks]

    def total(self, *states: str) -> int:
        return sum(block.size for _, block in self.blocks() if block.state in states)

    def reserved(self) -> int:
        return self.total("free", "allocated", "pending")

    # Requests

    def malloc(self, requested: int, stream: int) -> int | None:
        size = self.rounded(requested)
        is_small = size <= MIB
        found = self.search(size, stream, is_small) or self.grow(size, stream, is_small)
        if found is None:
            self.ooms += 1
            return None
        segment, block = found
        rest = block.size - size
        splits_all = is_small or self.settings.expandable_segments
        if rest >= 512 if splits_all else (size < self.settings.max_split_size and rest > MIB):
            left = RefBlock(block.address + size, rest, stream, is_small, born=self.clock[is_small])
            segment.blocks.insert(segment.blocks.index(block) + 1, left)
            block.size = size
        block.state, block.requested = "allocated", requested
        return block.address

    def free(self, address: int, *, deferred: bool) -> None:
        block = self.at(address)
        block.state = "pending"
        if not deferred:
            self.complete(address)

    def complete(self, address: int) -> None:
        block = self.at(address)
        block.state = "free"
        block.born = self.clock[block.is_small]
        segment = next(one for one in self.segments if block in one.blocks)
        self.merge(segment)

    def at(self, address: int) -> RefBlock:
        return next(one for _, one in self.blocks() if one.address == address and one.state in ("allocated", "pending"))

    # Rules

    def rounded(self, requested: int) -> int:
        if requested < 512:
            return 512
        interval = 0
        while interval < 15 and requested >= (2 << interval) * MIB:
            interval += 1
        divisions = self.settings.roundup_power2_divisions[interval]
        if divisions > 1 and requested > 512 * divisions:
            power = 1
            while power * 2 <= requested:
                power *= 2
            if power == requested:
                return requested
            step = power // divisions
            if step == 0:
                return 2 * power
            while requested % step:
                requested += step - requested % step
            return requested
        return (requested + 511) // 512 * 512

    def search(self, size: int, stream: int, is_small: bool) -> tuple[RefSegment, RefBlock] | None:
        if self.collects:
            self.clock[is_small] += 1
        free = sorted(
            (
                (block.size, block.address, segment, block)
                for segment, block in self.blocks()
                if block.state == "free" and block.stream == stream and block.is_small == is_small
            ),
            key=lambda one: one[:2],
        )
        free = [one for one in free if one[0] >= size]
        if free and free[0][2].expandable:
            if self.settings.expandable_segments:
                while len(free) > 1 and free[0][2].expandable and self.can_be(free[1]) < self.can_be(free[0]):
                    free.pop(0)
            else:
                while free and free[0][2].expandable:
                    free.pop(0)
        if not free:
            return None
        _, _, segment, block = free[0]
        max_split = self.settings.max_split_size
        if size < max_split <= block.size:
            return None
        if size >= max_split and block.size >= size + self.settings.max_non_split_rounding:
            return None
        return segment, block

    def can_be(self, entry: Any) -> int:
        _, _, segment, block = entry
        at = segment.blocks.index(block) + 1
        follows = at < len(segment.blocks) and segment.blocks[at].state == "unmapped"
        return int(block.size + (segment.blocks[at].size if follows else 0))

    def merge(self, segment: RefSegment) -> None:
        merged: list[RefBlock] = []
        for block in segment.blocks:
            last = merged[-1] if merged else None
            if last is not None and last.state == block.state and block.state in ("free", "unmapped"):
                last.size += block.size
                last.born = max(last.born, block.born)
            else:
                merged.append(block)
        segment.blocks = merged

    def grow(self, size: int, stream: int, is_small: bool) -> tuple[RefSegment, RefBlock] | None:
        wanted = 2 * MIB if is_small else self.settings.large_segment_size
        if size >= 10 * MIB:
            wanted = (size + 2 * MIB - 1) // (2 * MIB) * (2 * MIB)
        limit = self.limit
        if self.settings.throw_on_cudamalloc_oom and limit is not None and self.reserved() + wanted > limit:
            return None
        if self.collects:
            self.collect()
        found = self.take(size, stream, is_small, wanted)
        if found is None and self.release_some(size, stream, is_small):
            found = self.take(size, stream, is_small, wanted)
        if found is None:
            self.empty_cache()
            self.retries += 1
            found = self.take(size, stream, is_small, wanted)
        return found

    def take(self, size: int, stream: int, is_small: bool, wanted: int) -> tuple[RefSegment, RefBlock] | None:
        if self.limit is not None and self.reserved() + wanted > self.limit:
            return None
        if self.settings.expandable_segments:
            return self.expand(size, stream, is_small)
        if self.reserved() + wanted > self.capacity:
            return None
        block = RefBlock(self.next_address, wanted, stream, is_small, born=self.clock[is_small])
        self.next_address += wanted
        segment = RefSegment([block], expandable=False)
        self.segments.append(segment)
        return segment, block

    # Giving back

    def whole_free(self, is_small: bool) -> list[tuple[RefSegment, RefBlock]]:
        found = [
            (one, one.blocks[0])
            for one in self.segments
            if not one.expandable and len(one.blocks) == 1 and one.blocks[0].state == "free"
        ]
        return [(segment, block) for segment, block in found if block.is_small == is_small]

    def collect(self) -> None:
        assert self.limit is not None
        wanted = self.reserved() - int(self.settings.garbage_collection_threshold * self.limit)
        while wanted > 0:
            candidates = self.whole_free(False)
            ages = [self.clock[False] - block.born for _, block in candidates]
            if not ages:
                return
            average = sum(ages) / len(ages)
            for (segment, block), age in zip(candidates, ages, strict=True):
                if age >= average:
                    wanted -= block.size
                    self.segments.remove(segment)

    def release_some(self, size: int, stream: int, is_small: bool) -> bool:
        max_split = self.settings.max_split_size
        if max_split == 2**64 - 1:
            return False
        key = max(size, max_split)
        free = (
            sorted(
                (block.size, block.address, segment, block)
                for segment, block in self.blocks()
                if block.state == "free" and block.stream == stream and block.is_small == is_small
            )
            if not self.settings.expandable_segments
            else []
        )
        enough = [one for one in free if one[0] >= key]
        if enough:
            self.segments.remove(enough[0][2])
            return True
        released = 0
        while free and released < key and free[-1][0] >= max_split:
            _, _, segment, block = free.pop()
            released += block.size
            self.segments.remove(segment)
        return released >= key

    def empty_cache(self) -> None:
        for _, block in self.blocks():
            if block.state == "pending":
                block.state = "free"
                block.born = self.clock[block.is_small]
        for segment in self.segments:
            self.merge(segment)
        for segment, _ in self.whole_free(False) + self.whole_free(True):
            self.segments.remove(segment)
        for segment in [one for one in self.segments if one.expandable]:
            self.unmap(segment)

    # Expandable segments: every granule is looked at on its own

    def expand(self, size: int, stream: int, is_small: bool) -> tuple[RefSegment, RefBlock] | None:
        places = sorted(
            (
                (block.address, segment, block)
                for segment, block in self.blocks()
                if block.state == "unmapped" and block.stream == stream and block.is_small == is_small
            ),
            key=lambda one: one[0],
        )
        for _, segment, block in places:
            start = segment.blocks.index(block)
            if start and segment.blocks[start - 1].state == "free":
                start -= 1
            if self.room(segment, start) >= size:
                return self.fill(segment, segment.blocks[start].address, size)
        granule = 2 * MIB if is_small else self.settings.large_segment_size
        space = (self.capacity + self.capacity // 8 + granule - 1) // granule * granule
        block = RefBlock(self.next_address, space, stream, is_small, state="unmapped")
        segment = RefSegment([block], expandable=True, granule=granule, start=self.next_address)
        self.next_address += space
        self.segments.append(segment)
        return self.fill(segment, block.address, size)

    def room(self, segment: RefSegment, start: int) -> int:
        bytes_ = 0
        for block in segment.blocks[start:]:
            if block.state not in ("free", "unmapped"):
                break
            bytes_ += block.size
        return bytes_

    def fill(self, segment: RefSegment, address: int, size: int) -> tuple[RefSegment, RefBlock] | None:
        """Map unmapped space after an address until a free block of the size starts there."""
        while True:
            at = next(n for n, block in enumerate(segment.blocks) if block.address == address)
            block = segment.blocks[at]
            if block.state == "free" and block.size >= size:
                return segment, block
            gap = at if block.state == "unmapped" else at + 1
            missing = size if gap == at else size - block.size
            hole = segment.blocks[gap]
            length = (min(missing, hole.size) + segment.granule - 1) // segment.granule * segment.granule
            if self.reserved() + length > self.capacity:
                return None
            new = RefBlock(hole.address, length, hole.stream, hole.is_small, born=self.clock[hole.is_small])
            hole.address += length
            hole.size -= length
            segment.blocks[gap : gap + 1] = [new, hole] if hole.size else [new]
            self.merge(segment)

    def unmap(self, segment: RefSegment) -> None:
        pieces: list[RefBlock] = []
        was_unmapped = [block.state for block in segment.blocks] == ["unmapped"]
        for block in segment.blocks:
            first = block.address + (segment.start - block.address) % segment.granule
            last = block.address + block.size - (block.address + block.size - segment.start) % segment.granule
            if block.state != "free" or first >= last:
                pieces.append(block)
                continue
            for start, stop, state in (
                (block.address, first, "free"),
                (first, last, "unmapped"),
                (last, block.address + block.size, "free"),
            ):
                if start < stop:
                    born = self.clock[block.is_small]
                    pieces.append(RefBlock(start, stop - start, block.stream, block.is_small, state, born))
        segment.blocks = pieces
        self.merge(segment)
        # Address space for which there never was memory stays: torch releases a segment only when it unmaps its last.
        if len(segment.blocks) == 1 and segment.blocks[0].state == "unmapped" and not was_unmapped:
            self.segments.remove(segment)
