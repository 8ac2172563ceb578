"""What a failed prediction tells about a block that was in use before the history: how large its remainder is.

A remainder of up to 1 MiB that was not split off belongs to its block (torch's rule for the large pool). It shows in
two ways: an alloc starts behind it, inside what the model takes for free, which tells the remainder; or a free block
that is shorter than the model takes it for is passed over, which tells how large it is at least, until more is told.
Either way the block lies right before the free one.

It also tells, where torch takes the oldest of equal blocks, which of two segments was made first.
"""

from __future__ import annotations

from memtrace.allocator.blocks import ALLOCATED, PENDING, Block
from memtrace.allocator.initial import Initial, InitialBlock, ages
from memtrace.allocator.model import Allocator
from memtrace.allocator.recorded import free_block_at
from memtrace.allocator.sizes import MIN_BLOCK

Found = tuple[InitialBlock, Block, int, bool]
"""A block of the initial state, the same in the model, bytes to add to its remainder, and whether that may be more."""


def infer_age(
    allocator: Allocator, initial: Initial, *, size: int, predicted: Block | None, recorded: int
) -> int | None:
    """Note which of two segments is older, if that explains why an alloc is at `recorded` and not in `predicted`.

    Both hold a free block of one size, and both were there before the history, which does not tell when they were made.
    Return a number of its own, below 0, if it was learned now. Affects: `initial.older`, which the next replay starts
    with.
    """
    other = None if predicted is None else free_block_at(allocator, recorded, size)
    if predicted is None or other is None or other.address != recorded or other.size != predicted.size:
        return None
    if max(predicted.made, other.made) >= 0 or predicted.made == other.made:
        return None
    pair = (_segment_of(other), _segment_of(predicted))
    if pair in initial.older:
        return None
    initial.older.append(pair)
    if ages(initial) is None:
        initial.older.pop()
        return None
    return -len(initial.older)


def _segment_of(block: Block) -> int:
    while block.prev is not None:
        block = block.prev
    return block.address


def open_blocks(initial: Initial) -> dict[int, InitialBlock]:
    """Return the blocks that may have a remainder, by address."""
    return {one.address: one for used in initial.blocks for one in used if one.slack}


def infer_slack(
    allocator: Allocator,
    initial: Initial,
    unsure: dict[int, InitialBlock],
    *,
    size: int,
    predicted: Block | None,
    recorded: int,
) -> int | None:
    """Set the remainder that explains why an alloc of this size is at `recorded` and not in the free block `predicted`.

    Return the address of its block; `None` if there is none. Affects: what is inferred of the initial state, and the
    model, whose block becomes that much larger.
    """
    if len(unsure) == len(initial.extra) and not initial.at_least:
        return None
    # An alloc takes the front of a free block, so that one in the middle of what the model takes for free tells more.
    chosen = _starts_behind(allocator, initial, unsure, size, recorded) or _was_passed_over(
        initial, unsure, size, predicted
    )
    if chosen is None:
        return None
    _add(allocator, initial, *chosen)
    return chosen[0].address


def _starts_behind(
    allocator: Allocator, initial: Initial, unsure: dict[int, InitialBlock], size: int, recorded: int
) -> Found | None:
    """Return the block behind whose remainder the alloc starts."""
    behind = free_block_at(allocator, recorded, size)
    before = None if behind is None else _open_before(initial, unsure, behind)
    if behind is None or before is None or not behind.address < recorded <= behind.address + _left(initial, before[0]):
        return None
    return (*before, recorded - behind.address, False)


def _was_passed_over(
    initial: Initial, unsure: dict[int, InitialBlock], size: int, predicted: Block | None
) -> Found | None:
    """Return the block because of whose remainder the predicted one is shorter than the request."""
    before = None if predicted is None else _open_before(initial, unsure, predicted)
    if predicted is None or before is None:
        return None
    least = predicted.size - size + MIN_BLOCK
    return (*before, least, True) if 0 < least <= _left(initial, before[0]) else None


def _left(initial: Initial, block: InitialBlock) -> int:
    """Return the bytes by which the remainder of a block may be larger than what is known of it."""
    return block.slack - initial.extra.get(block.address, 0)


def _open_before(initial: Initial, unsure: dict[int, InitialBlock], behind: Block) -> tuple[InitialBlock, Block] | None:
    """Return the block before a free one, if it has been in use since before the history and its size is not known."""
    live = behind.prev
    if live is None or live.state not in (ALLOCATED, PENDING):
        return None
    if live.address in initial.extra and live.address not in initial.at_least:
        return None
    block = unsure.get(live.address)
    return None if block is None or live.requested != block.requested else (block, live)


def _add(
    allocator: Allocator, initial: Initial, block: InitialBlock, live: Block, more: int, may_be_more: bool
) -> None:
    initial.extra[block.address] = initial.extra.get(block.address, 0) + more
    if may_be_more:
        initial.at_least.add(block.address)
    else:
        initial.at_least.discard(block.address)
    behind = live.next
    assert behind is not None
    behind.pool.remove(behind)
    live.size += more
    behind.address += more
    behind.size -= more
    behind.pool.insert(behind)
    allocator.active_bytes += more
    allocator.allocated_bytes += more
