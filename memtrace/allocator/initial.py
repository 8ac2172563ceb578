"""The state of the allocator at the start of a history, found by undoing the history from the final snapshot.

In: `History`. Out: `Initial`: the segments and the blocks in use before the first event, from which `build` makes an
`Allocator`.

Segments are undone event by event. A block was in use at the start if the first event of its address completes a free,
or if it is in use at the end and its address has no event. The final snapshot tells the size of the latter; of a block
that was freed on the way the history tells only what was requested. Its size follows from the rules:

    small pool, or expandable   the rounded request, since every remainder is split off
    large pool, gap ≤ 1 MiB     the request and the gap up to its neighbour: no block of the large pool is that small,
                                so the gap is a remainder that was not split off
    large pool, gap > 1 MiB     the rounded request, and perhaps a remainder of up to 1 MiB: *open*, see `replay`
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from dataclasses import dataclass, field, replace
from heapq import heapify, heappop, heappush

import numpy as np

from memtrace.allocator import expandable
from memtrace.allocator.blocks import ALLOCATED, FREE, PENDING, UNKNOWN_AGE, Block, Driver, Expandable
from memtrace.allocator.device_memory import ABOVE_ADDRESSES
from memtrace.allocator.history import (
    ALLOC,
    FREE_COMPLETED,
    FREE_REQUESTED,
    SEGMENT_ALLOC,
    SEGMENT_FREE,
    SEGMENT_UNMAP,
    History,
    Segment,
    find_fronts,
    reserved_deltas,
)
from memtrace.allocator.model import Allocator
from memtrace.allocator.settings import OLDEST_SEGMENT, Settings
from memtrace.allocator.sizes import MIN_BLOCK, SMALL_SEGMENT, SMALL_SIZE, round_size
from memtrace.schema.names import DEFAULT_POOL

_SPACE = 1 << 42
"""Address space, in bytes, that an expandable segment is taken to have: what it really has is in no recording."""


class InconsistentHistoryError(Exception):
    """The history cannot have happened in these segments; the message is one sentence."""


@dataclass(slots=True, kw_only=True)
class InitialBlock:
    """A block in use at the start. Bytes."""

    address: int
    requested: int
    size: int
    """The whole block; where `slack` is not 0, at least this."""
    is_pending: bool
    slack: int = 0
    """Bytes by which the block may be larger than `size`."""
    told: int = 0
    """Bytes by which it is, where an alloc tells."""
    told_at: int | None = None
    """The first alloc that starts right behind it while it is in use; `None` if there is none."""


@dataclass(slots=True, kw_only=True)
class Initial:
    """Segments and used blocks before the first event, each segment's by address."""

    segments: list[Segment]
    blocks: list[list[InitialBlock]]
    """For each segment its blocks in use."""
    fronts: dict[int, int] = field(default_factory=dict)
    """By address of the first mapped range of an expandable segment, where the segment begins, if that is lower."""
    extra: dict[int, int] = field(default_factory=dict)
    """What was inferred: by address of a block, the bytes by which it is larger than its request."""
    at_least: set[int] = field(default_factory=set)
    """Blocks of which that is only a lower bound: the free block behind them was too short for a request."""
    older: list[tuple[int, tuple[int, ...]]] = field(default_factory=list)
    """What was inferred: address of a segment, and of those that are younger."""


def find_initial(history: History, settings: Settings) -> Initial:
    """Return the state before the history.

    Raises:
        InconsistentHistoryError: blocks lie outside the segments or over each other.
    """
    segments = _undo_segments(history, settings)
    blocks = _blocks_of_segments(segments, _used_blocks(history))
    for segment, used in zip(segments, blocks, strict=True):
        _size_blocks(segment, used, settings)
    _look_behind(history, [block for used in blocks for block in used if block.slack])
    return Initial(segments=segments, blocks=blocks, fronts=find_fronts(history, segments, settings))


def check_possible(history: History, initial: Initial) -> None:
    """Check that what is in use never exceeds what is reserved.

    Raises:
        InconsistentHistoryError: it does.
    """
    changes = history.size * ((history.action == ALLOC) * 1 - (history.action == FREE_COMPLETED) * 1)
    in_use = sum(block.requested for used in initial.blocks for block in used) + np.cumsum(changes)
    reserved = sum(segment.size for segment in initial.segments) + np.cumsum(reserved_deltas(history))
    excess = int((in_use - reserved).max(initial=0))
    if excess > 0:
        raise InconsistentHistoryError(f"Blocks in use exceed the segments by {excess} bytes at one moment.")


def _undo_segments(history: History, settings: Settings) -> list[Segment]:
    """Return the segments at the start, by address."""
    live = {segment.address: replace(segment) for segment in history.segments}
    is_segment = (history.action >= SEGMENT_ALLOC) & (history.action <= SEGMENT_UNMAP)
    for at in np.flatnonzero(is_segment)[::-1].tolist():
        action, address, size = int(history.action[at]), int(history.address[at]), int(history.size[at])
        if action == SEGMENT_ALLOC:
            gone = live.pop(address, None)
            if gone is None or gone.size != size:
                raise InconsistentHistoryError("A segment that was taken from the device is not there afterwards.")
        elif action == SEGMENT_FREE:
            live[address] = _segment_before(history, at, SMALL_SEGMENT, is_expandable=False)
        elif action == SEGMENT_UNMAP:
            _add_range(live, _segment_before(history, at, settings.large_segment_size, is_expandable=True))
        else:
            _cut_range(live, address, address + size)
    return [live[address] for address in sorted(live)]


def _segment_before(history: History, at: int, granule: int, *, is_expandable: bool) -> Segment:
    """Return the segment that an event gave back. Small ones have 2 MiB; mapped ranges of large ones whole granules."""
    size = int(history.size[at])
    return Segment(
        address=int(history.address[at]),
        size=size,
        stream=int(history.stream[at]),
        is_small=size % granule != 0 if is_expandable else size == SMALL_SEGMENT,
        pool_id=DEFAULT_POOL,
        is_expandable=is_expandable,
    )


def _add_range(live: dict[int, Segment], added: Segment) -> None:
    """Add mapped memory, joined with mapped ranges that touch it."""
    after = live.pop(added.end, None)
    if after is not None and after.is_expandable:
        added = replace(after, address=added.address, size=added.size + after.size)
    elif after is not None:
        live[after.address] = after
    before = next((one for one in live.values() if one.is_expandable and one.end == added.address), None)
    if before is not None:
        before.size += added.size
    else:
        live[added.address] = added


def _cut_range(live: dict[int, Segment], start: int, stop: int) -> None:
    """Take mapped memory away, out of the range that holds it."""
    holder = next((one for one in live.values() if one.address <= start and stop <= one.end), None)
    if holder is None:
        raise InconsistentHistoryError("Memory that was mapped is not there afterwards.")
    del live[holder.address]
    if holder.address < start:
        live[holder.address] = replace(holder, size=start - holder.address)
    if stop < holder.end:
        live[stop] = replace(holder, address=stop, size=holder.end - stop)


def _used_blocks(history: History) -> list[InitialBlock]:
    """Return the blocks in use at the start, sizes of those that the final snapshot lacks as 0."""
    changes = np.flatnonzero((history.action == ALLOC) | (history.action == FREE_COMPLETED))
    touched, first = np.unique(history.address[changes], return_index=True)
    first = changes[first]
    freed = first[history.action[first] == FREE_COMPLETED]
    requests = np.flatnonzero(history.action == FREE_REQUESTED)
    requested_at, first_request = np.unique(history.address[requests], return_index=True)
    request_of = dict(zip(requested_at.tolist(), requests[first_request].tolist(), strict=True))
    found = [
        InitialBlock(address=address, requested=size, size=0, is_pending=request_of.get(address, at + 1) > at)
        for address, size, at in zip(
            history.address[freed].tolist(), history.size[freed].tolist(), freed.tolist(), strict=True
        )
    ]
    final = history.blocks
    for row in np.flatnonzero(~np.isin(final.address, touched)).tolist():
        address = int(final.address[row])
        found.append(
            InitialBlock(
                address=address,
                requested=int(final.requested[row]),
                size=int(final.size[row]),
                is_pending=bool(final.is_pending[row]) and address not in request_of,
            )
        )
    return sorted(found, key=lambda one: one.address)


def _blocks_of_segments(segments: list[Segment], blocks: list[InitialBlock]) -> list[list[InitialBlock]]:
    starts = [segment.address for segment in segments]
    found: list[list[InitialBlock]] = [[] for _ in segments]
    outside = 0
    for block in blocks:
        at = bisect_right(starts, block.address) - 1
        if at < 0 or block.address + max(block.size, block.requested) > segments[at].end:
            outside += 1
        else:
            found[at].append(block)
    if outside:
        raise InconsistentHistoryError(f"{outside} blocks that were in use at the start lie outside every segment.")
    return found


def _size_blocks(segment: Segment, blocks: list[InitialBlock], settings: Settings) -> None:
    """Set the size of each block of a segment, and how much larger it may be. Affects: the blocks."""
    for at, block in enumerate(blocks):
        limit = blocks[at + 1].address if at + 1 < len(blocks) else segment.end
        least = block.size or round_size(block.requested, settings)
        gap = limit - block.address - least
        if gap < 0 and block.size == 0 and block.address + block.requested <= limit:
            # Rounded under settings that were changed since.
            least, gap = limit - block.address, 0
        if gap < 0:
            raise InconsistentHistoryError("Blocks that were in use at the start lie over each other.")
        if block.size == 0:
            block.size = least
            if segment.is_small or segment.is_expandable:
                continue
            if least >= settings.max_split_size or gap <= SMALL_SIZE:
                block.size += gap
            else:
                # What is free behind it is a block of the large pool, which is larger than 1 MiB.
                block.slack = min(SMALL_SIZE, gap - SMALL_SIZE - MIN_BLOCK)


def _look_behind(history: History, blocks: list[InitialBlock]) -> None:
    """Note which allocs start behind blocks whose size is not known, while they are in use. Affects: the blocks.

    What lies within 1 MiB behind a block of the large pool starts right behind it: no block of that pool is so small
    as to lie between them. The replay looks at this only where it has failed to predict an alloc.
    """
    if not blocks:
        return
    allocs = np.flatnonzero(history.action == ALLOC)
    by_address = allocs[np.argsort(history.address[allocs], kind="stable")]
    starts = history.address[by_address]
    completed = np.flatnonzero(history.action == FREE_COMPLETED)
    addresses, first = np.unique(history.address[completed], return_index=True)
    freed_at = dict(zip(addresses.tolist(), completed[first].tolist(), strict=True))
    for block in blocks:
        least = block.address + block.size
        low, high = np.searchsorted(starts, [least, least + block.slack + 1])
        at = int(by_address[low:high].min(initial=len(history.action)))
        if at < freed_at.get(block.address, len(history.action)):
            block.told, block.told_at = int(history.address[at]) - least, at


def ages(initial: Initial) -> dict[int, int] | None:
    """Return the rank of each segment by age: as it was inferred, else by address. `None` if that is a circle."""
    younger_than: dict[int, set[int]] = {}
    waits_for: Counter[int] = Counter()
    for older, all_younger in initial.older:
        known = younger_than.setdefault(older, set())
        waits_for.update(set(all_younger) - known)
        known.update(all_younger)
    ready = [segment.address for segment in initial.segments if not waits_for[segment.address]]
    heapify(ready)
    ranks: dict[int, int] = {}
    while ready:
        address = heappop(ready)
        ranks[address] = len(ranks)
        for younger in younger_than.get(address, ()):
            waits_for[younger] -= 1
            if not waits_for[younger]:
                heappush(ready, younger)
    return ranks if len(ranks) == len(initial.segments) else None


def made_of(rank: int, ranks: dict[int, int]) -> int:
    """Return `Block.made` of what a segment of this rank holds: older than all that will be made."""
    return (rank - len(ranks)) << ABOVE_ADDRESSES


def build(initial: Initial, settings: Settings, driver: Driver) -> Allocator:
    """Return an allocator in the initial state."""
    allocator = Allocator(settings, driver, has_limit=True)
    ranks = (ages(initial) if settings.equal_sizes == OLDEST_SEGMENT else None) or {}
    for segment, blocks in zip(initial.segments, initial.blocks, strict=True):
        pool = allocator.pools(segment.pool_id)[not segment.is_small]
        made = made_of(ranks[segment.address], ranks) if ranks else 0
        block = Block(segment.address, segment.size, pool, segment.stream, made=made)
        if segment.is_expandable:
            block = _mapped_range(allocator, segment, initial)
        else:
            allocator.heads[segment.address] = block
            allocator.reserved_bytes += segment.size
        _carve(allocator, block, blocks, initial.extra)
    for pool in [allocator.small, allocator.large, *(one for pair in allocator.private.values() for one in pair)]:
        for block in pool.free_blocks():
            block.age_base = UNKNOWN_AGE
    return allocator


def _mapped_range(allocator: Allocator, segment: Segment, initial: Initial) -> Block:
    """Return the free block, in no pool, of a mapped range. Ranges of one stream and pool may share a segment."""
    pool = allocator.pools(segment.pool_id)[not segment.is_small]
    granule = SMALL_SEGMENT if segment.is_small else allocator.settings.large_segment_size
    holder = next(
        (
            block
            for _, block in pool.unmapped.get(segment.stream, [])
            if block.address <= segment.address
            and segment.end <= block.address + block.size
            and (segment.address - block.address) % granule == 0
        ),
        None,
    )
    if holder is None:
        others = [one.address for one in initial.segments if one.address > segment.address and not _same(one, segment)]
        space = min([*others, segment.address + _SPACE]) - segment.address
        space = max(space // granule * granule, segment.size)
        front = initial.fronts.get(segment.address, segment.address)
        whole = Expandable(front, space + segment.address - front, granule)
        holder = expandable.add_expandable(allocator, whole, pool, segment.stream)
    if holder.address < segment.address:
        # Unmapped space in front: cut it off, so that what is mapped starts where the range does.
        pool.remove_unmapped(holder)
        rest = Block(segment.address, holder.address + holder.size - segment.address, pool, holder.stream, holder.state)
        rest.expandable, rest.made, rest.order = holder.expandable, holder.made, holder.made + segment.address
        holder.size = segment.address - holder.address
        holder.insert_after(rest)
        pool.insert_unmapped(holder)
        pool.insert_unmapped(rest)
        holder = rest
    block = expandable.put_memory(allocator, holder, segment.size)
    pool.remove(block)
    return block


def _same(one: Segment, other: Segment) -> bool:
    return one.is_expandable and (one.stream, one.is_small, one.pool_id) == (
        other.stream,
        other.is_small,
        other.pool_id,
    )


def _carve(allocator: Allocator, block: Block, used: list[InitialBlock], extra: dict[int, int]) -> None:
    """Cut a free block, in no pool, into used blocks and the free ones between them."""
    for one in used:
        if one.address > block.address:
            block = _split(allocator, block, one.address - block.address)
        size = one.size + extra.get(one.address, 0)
        rest = block.size - size
        behind = _split(allocator, block, size, keep_front=True) if rest else None
        block.state = PENDING if one.is_pending else ALLOCATED
        block.requested = one.requested
        allocator.live[block.address] = block
        allocator.active_bytes += size
        allocator.allocated_bytes += 0 if one.is_pending else size
        if behind is None:
            return
        block = behind
    block.pool.insert(block)


def _split(allocator: Allocator, block: Block, size: int, *, keep_front: bool = False) -> Block:
    """Split a block in two and return the hind one; the front goes to its pool, unless it is to be kept."""
    rest = Block(block.address + size, block.size - size, block.pool, block.stream, FREE, block.expandable, block.made)
    block.size = size
    block.insert_after(rest)
    if not keep_front:
        block.pool.insert(block)
    return rest
