"""What a failed prediction tells about a block that was in use before the history: how large its remainder is.

A remainder of up to 1 MiB that was not split off belongs to its block (torch's rule for the large pool). It shows in
two ways: an alloc starts behind it, inside what the model takes for free, which tells the remainder; or a free block
that is shorter than the model takes it for is passed over, which tells how large it is at least, until more is told.
Either way the block lies right before the free one.

It also tells, where torch takes the oldest of equal blocks, which of two segments was made first. A block that was
passed over for another of its size may be short or young. Where an alloc starts behind its neighbour at any later
time, that tells the remainder for certain, and so which of the two it was. Where none does, it is taken for short:
nothing that follows can contradict that, since nothing is ever put there.
"""

from __future__ import annotations

from dataclasses import dataclass

from memtrace.allocator.blocks import ALLOCATED, FREE, PENDING, Block
from memtrace.allocator.initial import Initial, InitialBlock, ages, made_of
from memtrace.allocator.model import Allocator
from memtrace.allocator.recorded import free_block_at
from memtrace.allocator.sizes import MIN_BLOCK


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What was inferred."""

    about: int
    """Address of a block whose size was inferred; a number below 0 for which of two segments is older."""
    by: int
    """The alloc that told it, which does not count as predicted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A remainder that explains a failed prediction. Bytes."""

    block: InitialBlock
    """The block of the initial state."""
    live: Block
    """The same block in the model."""
    more: int
    """What to add to its remainder."""
    may_be_more: bool
    """Whether that is only the least that it can be."""
    by: int
    """The alloc that told it."""


def infer_age(
    allocator: Allocator,
    initial: Initial,
    unsure: dict[int, InitialBlock],
    *,
    at: int,
    size: int,
    predicted: Block | None,
    recorded: int,
) -> Told | None:
    """Note which segment is older than others, if that explains why an alloc is at `recorded`, not in `predicted`.

    All hold a free block of one size, and were there before the history, which does not tell when they were made.
    Affects: `initial.older`, and the order of equal blocks in the model.
    """
    other = None if predicted is None else free_block_at(allocator, recorded, size)
    if predicted is None or other is None or other.address != recorded or other.size != predicted.size:
        return None
    if max(predicted.made, other.made) >= 0 or predicted.made == other.made:
        return None
    equals = [block for free, _, block in other.pool.free[other.stream] if free == other.size and block.made < 0]
    sure = [block for block in equals if block is predicted or _open_before(initial, unsure, block) is None]
    younger = {_segment_of(block) for block in sure} - {_segment_of(other)}
    initial.older.append((_segment_of(other), tuple(younger)))
    ranks = ages(initial)
    if ranks is None:
        initial.older.pop()
        return None
    _order_by(ranks, allocator)
    return Told(about=-len(initial.older), by=at)


def _order_by(ranks: dict[int, int], allocator: Allocator) -> None:
    """Order the blocks of the initial segments that are still there by what is known of their ages now."""
    for address, rank in ranks.items():
        block, made = allocator.heads.get(address), made_of(rank, ranks)
        if block is None or block.made >= 0:
            continue
        while block is not None and block.made != made:
            age, is_free = block.age_base, block.state == FREE
            if is_free:
                block.pool.remove(block)
            block.set_made(made)
            if is_free:
                block.pool.insert(block)
            block.age_base = age
            block = block.next


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
    at: int,
    until: int,
    size: int,
    predicted: Block | None,
    recorded: int,
) -> Told | None:
    """Set the remainder that explains why an alloc of this size is at `recorded` and not in the free block `predicted`.

    Events up to `until` may be asked. Affects: what is inferred of the initial state, and the model, whose block
    becomes that much larger.
    """
    if len(unsure) == len(initial.extra) and not initial.at_least:
        return None
    # An alloc takes the front of a free block, so that one in the middle of what the model takes for free tells more.
    found = _starts_behind(allocator, initial, unsure, at=at, size=size, recorded=recorded) or _was_passed_over(
        initial, unsure, at=at, until=until, size=size, predicted=predicted
    )
    if found is None:
        return None
    _add(allocator, initial, found)
    return Told(about=found.block.address, by=found.by)


def _starts_behind(
    allocator: Allocator, initial: Initial, unsure: dict[int, InitialBlock], *, at: int, size: int, recorded: int
) -> Found | None:
    """Return the block behind whose remainder the alloc starts."""
    behind = free_block_at(allocator, recorded, size)
    before = None if behind is None else _open_before(initial, unsure, behind)
    if behind is None or before is None or not behind.address < recorded <= behind.address + _left(initial, before[0]):
        return None
    block, live = before
    return Found(block=block, live=live, more=recorded - behind.address, may_be_more=False, by=at)


def _was_passed_over(
    initial: Initial, unsure: dict[int, InitialBlock], *, at: int, until: int, size: int, predicted: Block | None
) -> Found | None:
    """Return the block because of whose remainder the predicted one is shorter than the request."""
    before = None if predicted is None else _open_before(initial, unsure, predicted)
    if predicted is None or before is None:
        return None
    block, live = before
    least = predicted.size - size + MIN_BLOCK
    if block.told_at is not None and block.told_at < until:
        more = block.told - initial.extra.get(block.address, 0)
        return Found(block=block, live=live, more=more, may_be_more=False, by=block.told_at) if more >= least else None
    is_possible = 0 < least <= _left(initial, block)
    return Found(block=block, live=live, more=least, may_be_more=True, by=at) if is_possible else None


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


def _add(allocator: Allocator, initial: Initial, found: Found) -> None:
    address = found.block.address
    initial.extra[address] = initial.extra.get(address, 0) + found.more
    if found.may_be_more:
        initial.at_least.add(address)
    else:
        initial.at_least.discard(address)
    live = found.live
    behind = live.next
    assert behind is not None
    behind.pool.remove(behind)
    live.size += found.more
    behind.address += found.more
    behind.size -= found.more
    behind.pool.insert(behind)
    allocator.active_bytes += found.more
    allocator.allocated_bytes += found.more
