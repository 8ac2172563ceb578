"""The state of the model at a moment: its segments, the blocks that tile them, free memory and fragmentation."""

from __future__ import annotations

from memtrace.allocator.blocks import ALLOCATED, FREE, PENDING, UNMAPPED, Block
from memtrace.allocator.model import Allocator
from memtrace.allocator.results import AllocatorState, BlockState, SegmentState
from memtrace.schema.names import BlockState as BlockName

_NAMES = {
    FREE: BlockName.INACTIVE.value,
    ALLOCATED: BlockName.ACTIVE_ALLOCATED.value,
    PENDING: BlockName.ACTIVE_PENDING_FREE.value,
}


def state_of(allocator: Allocator) -> AllocatorState:
    """Return a frozen picture of an allocator; an expandable segment counts once for each mapped range, as in torch."""
    segments = [_segment(chain) for head in allocator.heads.values() for chain in _ranges(head)]
    segments += [_segment(chain) for one in allocator.expandables for chain in _ranges(one.head)]
    free = [block for segment in segments for block in segment.blocks if block.requested_bytes is None]
    split = sum(
        block.size_bytes
        for segment in segments
        if len(segment.blocks) > 1
        for block in segment.blocks
        if block.requested_bytes is None
    )
    return AllocatorState(
        segments=tuple(sorted(segments, key=lambda one: one.address)),
        allocated_bytes=allocator.allocated_bytes,
        active_bytes=allocator.active_bytes,
        reserved_bytes=allocator.reserved_bytes,
        requested_bytes=sum(block.requested for block in allocator.live.values() if block.state == ALLOCATED),
        largest_free_block_bytes=max((block.size_bytes for block in free), default=0),
        inactive_split_bytes=split,
        num_free_blocks=len(free),
    )


def _ranges(head: Block | None) -> list[list[Block]]:
    """Return the stretches of mapped blocks of a segment."""
    found: list[list[Block]] = [[]]
    while head is not None:
        if head.state == UNMAPPED:
            found.append([])
        else:
            found[-1].append(head)
        head = head.next
    return [chain for chain in found if chain]


def _segment(chain: list[Block]) -> SegmentState:
    first = chain[0]
    return SegmentState(
        address=first.address,
        size_bytes=sum(block.size for block in chain),
        stream=first.stream,
        is_small=first.pool.is_small,
        pool_id=first.pool.pool_id,
        is_expandable=first.expandable is not None,
        blocks=tuple(
            BlockState(
                address=block.address,
                size_bytes=block.size,
                requested_bytes=None if block.state == FREE else block.requested,
                state=_NAMES[block.state],
            )
            for block in chain
        ),
    )
